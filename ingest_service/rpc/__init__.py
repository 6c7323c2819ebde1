"""The gRPC surface: servicers that translate between messages and the service's parts. Decides nothing itself."""
