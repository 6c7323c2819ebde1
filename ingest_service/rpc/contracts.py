"""Changed contracts, as clients send them."""

from __future__ import annotations

from collections.abc import Sequence

from ingest_service.contracts import Contract
from ingest_service.contracts.change import Change
from ingest_service.contracts.declare import declared_contracts
from ingest_service.contracts.standing import check_change
from ingest_service.errors import BadRequest, ContractError
from ingest_service.rpc.parts import Streams
from tidemill.v1 import streams_pb2


def apply_contracts(streams: Streams, request: streams_pb2.ApplyContractRequest) -> streams_pb2.ApplyContractResponse:
    """Compare the request's contracts with those in force and, unless only that was asked for, put them in force.

    All of them are compared before the first is put in force. It blocks: the log and the disk are waited for.

    Raises:
        BadRequest: the descriptors are not those of a file with a contract.
        ContractError: a contract is wrong in itself, or breaks something (IncompatibleContract, unless check_only).
        UnknownStream: there is no stream of that name: the service opens new ones when it starts.
        PermissionDenied: the caller's key does not allow this.
    """
    contracts = _contracts(request)
    parts = {contract.stream: streams[contract.stream] for contract in contracts}
    changes = {contract.stream: parts[contract.stream].compare(contract) for contract in contracts}
    response = streams_pb2.ApplyContractResponse()
    if not request.check_only:
        for stream, found in changes.items():
            check_change(stream, found)
    for contract in contracts:
        applied = not request.check_only and parts[contract.stream].apply(contract)
        response.contracts.add(
            stream=contract.stream,
            version=parts[contract.stream].contract.version,
            applied=applied,
            changes=_changes(changes[contract.stream]),
        )
    return response


def _contracts(request: streams_pb2.ApplyContractRequest) -> list[Contract]:
    """The contracts that the last file declares, or the one that is named."""
    if not request.descriptors.file:
        raise BadRequest("expected a contract's .proto file and all that it imports, came no file", "descriptors")
    file = request.descriptors.file[-1].name
    try:
        declared = list(declared_contracts(request.descriptors, file))
    except (TypeError, KeyError, StopIteration) as error:
        # protobuf's descriptor pool says by these that a file does not fit the others.
        raise BadRequest(
            f"expected {file} and all that it imports; it can't be linked: {error}", "descriptors"
        ) from error
    for each in declared:
        if isinstance(each, ContractError):
            raise each
    contracts = [each for each in declared if isinstance(each, Contract)]
    wanted = [each for each in contracts if request.message_type in ("", each.message_type)]
    if not wanted:
        known = ", ".join(each.message_type for each in contracts) or "none"
        raise BadRequest(
            f"expected a contract {request.message_type or '(any)'} in {file}; it has: {known}",
            "message_type",
        )
    return wanted


def _changes(changes: Sequence[Change]) -> list[streams_pb2.ContractChange]:
    return [
        streams_pb2.ContractChange(field=change.field, compatible=change.compatible, message=change.message)
        for change in changes
    ]
