"""One day of order lines, all of them good, in the order in which they happened."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from tidemill.simulate import catalogue as shop
from tidemill.simulate.catalogue import Catalogue, Ints, Texts

INVOICES_A_DAY = 400
"""Invoice numbers are given in blocks of so many a date: days of usual size share none."""
_NUMBERS = 900_000

OPENING_US = 6 * 3_600_000_000
CLOSING_US = 20 * 3_600_000_000


def make_lines(
    date: dt.date, rng: np.random.Generator, lines: int, prefix: str, first_invoice: int | None = None
) -> pa.Table:
    """`lines` order lines of a UTC date, ordered by time.

    prefix: in front of every event id. first_invoice: number of the first invoice; by default the date's own.
    Returns the contract's columns: event_id, invoice_no, stock_code, description, quantity, unit_price DECIMAL(12,3),
    invoiced_at timestamp[us, UTC], customer_id, country.
    """
    goods = Catalogue.make()
    kinds, sizes = _invoices(rng, lines)
    times = np.sort(_times(rng, len(sizes)))
    invoice = np.repeat(np.arange(len(sizes)), sizes)
    cancelled = kinds[invoice]

    article = rng.choice(shop.ARTICLES, lines, p=goods.weights)
    codes, names = goods.codes[article].copy(), goods.descriptions[article].copy()
    prices = goods.prices_milli[article].copy()
    quantities = rng.choice(shop.QUANTITIES, lines, p=shop.QUANTITY_WEIGHTS / shop.QUANTITY_WEIGHTS.sum())

    customers, countries = _customers(rng, sizes, cancelled_invoices=kinds)
    quantities[cancelled] *= -1
    plain = np.flatnonzero(~cancelled)
    _oddities(rng, goods, plain, lines, codes, names, prices, quantities)
    source = _repeated(rng, invoice)

    day_us = (date - dt.date(1970, 1, 1)).days * 86_400_000_000
    first = date.toordinal() * INVOICES_A_DAY if first_invoice is None else first_invoice
    numbers = 100_000 + (first + np.arange(len(sizes))) % _NUMBERS
    letters = np.where(kinds, "C", "").astype(object)
    invoice_no = (letters + numbers.astype(str).astype(object))[invoice]
    ids = np.array([f"{prefix}{number:07d}" for number in range(lines)], object)
    customer = customers[invoice]
    return pa.table(
        {
            "event_id": pa.array(ids, pa.string()),
            "invoice_no": pa.array(invoice_no, pa.string()),
            "stock_code": pa.array(codes[source], pa.string()),
            "description": pa.array(names[source], pa.string()),
            "quantity": pa.array(quantities[source], pa.int64()),
            "unit_price": _decimals(prices[source]),
            "invoiced_at": pa.array(day_us + times[invoice], pa.timestamp("us", "UTC")),
            "customer_id": pa.array(customer, pa.int64(), mask=customer == 0),
            "country": pa.array(countries[invoice], pa.string()),
        }
    )


def _invoices(rng: np.random.Generator, lines: int) -> tuple[np.ndarray, Ints]:
    """Which invoices are cancellations, and how many lines each has: exactly `lines` in all."""
    cancelled = round(lines * shop.SHARE_CANCELLED)
    sold_sizes = _sizes(rng, lines - cancelled, shop.LINES_PER_INVOICE)
    sizes = np.concatenate([sold_sizes, _sizes(rng, cancelled, shop.LINES_PER_CANCELLATION)])
    kinds = np.arange(len(sizes)) >= len(sold_sizes)
    order = rng.permutation(len(sizes))
    return kinds[order], sizes[order]


def _sizes(rng: np.random.Generator, lines: int, mean: float) -> Ints:
    """Sizes of invoices, long-tailed as real ones, that add up to `lines`."""
    if lines == 0:
        return np.zeros(0, np.int64)
    sigma = 1.0
    count = max(1, round(lines / mean))
    drawn = np.ceil(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count))
    # Scaled to the number of lines; what rounding leaves goes to the largest: they hardly notice.
    sizes = np.maximum(1, np.floor(drawn * lines / drawn.sum())).astype(np.int64)
    while (rest := lines - int(sizes.sum())) != 0:
        largest = np.argsort(sizes)[::-1][: abs(rest)]
        if rest < 0:
            # There are fewer invoices than lines: one of two lines or more is always among the largest.
            largest = largest[sizes[largest] > 1]
        sizes[largest] += 1 if rest > 0 else -1
    return np.asarray(sizes, np.int64)


def _times(rng: np.random.Generator, count: int) -> Ints:
    """Microseconds of the day, whole seconds within the opening hours."""
    weights = shop.HOUR_WEIGHTS[:-1].copy()
    weights[-1] += shop.HOUR_WEIGHTS[-1]
    hours = rng.choice(shop.HOURS[:-1], count, p=weights / weights.sum())
    seconds = hours * 3600 + rng.integers(0, 3600, count)
    return np.asarray(seconds * 1_000_000, np.int64)


def _customers(rng: np.random.Generator, sizes: Ints, cancelled_invoices: np.ndarray) -> tuple[Ints, Texts]:
    """Customer (0: none) and country of each invoice; about a quarter of the lines has no customer."""
    number = rng.integers(0, shop.CUSTOMERS, len(sizes))
    # A customer lives in one country: drawn by the customer's number, the same every day.
    home = np.random.default_rng(2).choice(
        len(shop.COUNTRIES), shop.CUSTOMERS, p=shop.COUNTRY_WEIGHTS / shop.COUNTRY_WEIGHTS.sum()
    )
    customers = number + 12_346
    sold = rng.permutation(np.flatnonzero(~cancelled_invoices))
    without = sold[np.cumsum(sizes[sold]) <= shop.SHARE_NO_CUSTOMER * sizes.sum()]
    customers[without] = 0
    countries = shop.COUNTRIES[home[number]]
    countries[without] = np.where(rng.random(len(without)) < 0.97, "United Kingdom", countries[without])
    return customers, countries


def _oddities(
    rng: np.random.Generator, goods: Catalogue, plain: Ints, lines: int,
    codes: Texts, names: Texts, prices: Ints, quantities: Ints,
) -> None:  # fmt: skip
    """Lines that real tills have too, put in place: written off, given away, postage. All keep the contract."""
    order = rng.permutation(plain)
    written_off = round(lines * shop.SHARE_WRITTEN_OFF)
    free = max(written_off, round(lines * shop.SHARE_FREE))
    nameless = min(free, round(lines * shop.SHARE_NO_DESCRIPTION))
    no_product = order[free : free + round(lines * shop.SHARE_NO_PRODUCT)]
    quantities[order[:written_off]] *= -1
    prices[order[:free]] = 0
    names[order[:nameless]] = None
    codes[no_product], names[no_product] = goods.no_products(rng.integers(0, 7, len(no_product)))


def _repeated(rng: np.random.Generator, invoice: Ints) -> Ints:
    """For each line the line that it shows: some show the one before them, on the same invoice."""
    lines = len(invoice)
    source = np.arange(lines)
    same = np.flatnonzero(invoice[1:] == invoice[:-1]) + 1
    repeats = rng.permutation(same)[: round(lines * (shop.SHARE_REPEATED - shop.SHARE_REPEATED_BY_CHANCE))]
    source[repeats] = repeats - 1
    return source


def _decimals(milli: Ints) -> pa.Array:
    """Thousandths as DECIMAL(12,3): the digits are the same, only the type says where the point is."""
    wide = np.empty((len(milli), 2), np.int64)
    wide[:, 0] = milli
    wide[:, 1] = np.where(milli < 0, -1, 0)
    return pa.Array.from_buffers(pa.decimal128(12, 3), len(milli), [None, pa.py_buffer(wide.tobytes())])
