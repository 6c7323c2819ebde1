"""What the shop sells, to whom, when and how much of it.

The proportions are those of the UCI "Online Retail" data set (Chen, 2015, https://doi.org/10.24432/C5BW33), measured
over its 541,909 lines; names and numbers of articles and customers are made up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]

ARTICLES = 4_000
CUSTOMERS = 4_372

# Shares of all lines.
SHARE_NO_CUSTOMER = 135_080 / 541_909
SHARE_CANCELLED = 9_288 / 541_909
SHARE_WRITTEN_OFF = 1_336 / 541_909  # negative quantity, price 0, no cancellation
SHARE_NO_DESCRIPTION = 1_454 / 541_909
SHARE_FREE = 2_515 / 541_909
SHARE_REPEATED = 5_268 / 541_909
SHARE_REPEATED_BY_CHANCE = 0.0035  # the same article, as often, twice on an invoice: happens by itself here
SHARE_SPACED = 113_452 / 541_909
SHARE_NO_PRODUCT = 2_995 / 541_909

LINES_PER_INVOICE = 24.0
LINES_PER_CANCELLATION = 2.42

HOURS = np.arange(6, 21)
HOUR_WEIGHTS = np.array([22, 31, 624, 1824, 2961, 3165, 3962, 3369, 3137, 3069, 1952, 1205, 333, 219, 28], float)
"""Invoices by hour, 06 to 20; the shop closes at 20:00, so the last hour's go to the one before."""

QUANTITIES = np.array([1, 2, 12, 6, 4, 3, 24, 10, 8, 5, 48, 25, 20, 16, 36, 72, 100, 144, 480])
QUANTITY_WEIGHTS = np.array(
    [273.5, 151, 112.7, 75.4, 71, 68.5, 44.3, 41.1, 24.2, 21.7, 11.2, 9.5, 9.3, 7.9, 6, 5, 4, 3, 1], float
)
PRICES_MILLI = np.array(
    [1250, 1650, 850, 2950, 420, 4950, 3750, 2100, 2460, 2080, 830, 4130, 1950, 1450, 2550, 1630, 3290, 390, 5950,
     650, 7950, 9950, 12750, 16950, 210]
)  # fmt: skip
PRICE_WEIGHTS = np.array(
    [93, 70, 53, 51, 45, 35, 34, 33, 32, 31, 31, 28, 24, 24, 24, 23, 22, 15, 15, 15, 25, 15, 9, 6, 12], float
)

COUNTRIES = np.array(
    ["United Kingdom", "Germany", "France", "EIRE", "Spain", "Netherlands", "Belgium", "Switzerland", "Portugal",
     "Australia", "Norway", "Italy", "Channel Islands", "Finland", "Unspecified"], object
)  # fmt: skip
COUNTRY_WEIGHTS = np.array(
    [9143, 175, 158, 151, 47, 44, 38, 37, 28, 23, 20, 15, 14, 13, 8], float
)  # fmt: skip

_NO_PRODUCTS = np.array(["POST", "DOT", "M", "C2", "D", "S", "BANK CHARGES"], object)
_NO_PRODUCT_NAMES = np.array(
    ["POSTAGE", "DOTCOM POSTAGE", "Manual", "CARRIAGE", "Discount", "SAMPLES", "Bank Charges"], object
)
_COLOURS = (
    "RED", "BLUE", "PINK", "WHITE", "GREEN", "IVORY", "BLACK", "SILVER", "CREAM", "ANTIQUE", "VINTAGE", "RETROSPOT",
    "REGENCY", "WOODEN", "GLASS",
)  # fmt: skip
_MIDDLES = (
    "HANGING HEART", "CHRISTMAS", "POLKADOT", "METAL", "SPOTTY", "PAPER", "GARDEN", "KITCHEN", "CERAMIC", "STAR",
    "FLORAL", "BIRD",
)  # fmt: skip
_NOUNS = (
    "LANTERN", "T-LIGHT HOLDER", "MUG", "CAKE CASES", "LUNCH BAG", "DOORMAT", "BUNTING", "ALARM CLOCK", "TEACUP",
    "CANDLE", "NOTEBOOK", "CUSHION", "HOT WATER BOTTLE", "PICTURE FRAME", "TRINKET BOX", "GIFT TAPE", "BOWL", "TRAY",
    "APRON", "BISCUIT TIN", "CHALKBOARD", "SIGN", "RIBBON",
)  # fmt: skip


@dataclass(frozen=True)
class Catalogue:
    """Articles by number: code, description, price in thousandths; and how often each is bought."""

    codes: Texts
    descriptions: Texts
    prices_milli: Ints
    weights: Floats

    @classmethod
    def make(cls) -> Catalogue:
        """The one catalogue: the same for every seed, so that days have articles in common."""
        rng = np.random.default_rng(1)
        numbers = rng.permutation(np.arange(20_000, 20_000 + ARTICLES))
        suffix = rng.choice(np.array(["", "", "", "A", "B", "C"], object), ARTICLES)
        spaced = rng.random(ARTICLES) < SHARE_SPACED
        names = [
            f"{_COLOURS[a]} {_MIDDLES[b]} {_NOUNS[c]}" + (" " if space else "")
            for a, b, c, space in zip(
                rng.integers(0, len(_COLOURS), ARTICLES),
                rng.integers(0, len(_MIDDLES), ARTICLES),
                rng.integers(0, len(_NOUNS), ARTICLES),
                spaced,
                strict=True,
            )
        ]
        # A few thousandths are real too: prices are exact to a tenth of a penny.
        prices = rng.choice(PRICES_MILLI, ARTICLES, p=PRICE_WEIGHTS / PRICE_WEIGHTS.sum())
        prices = prices + np.where(rng.random(ARTICLES) < 0.002, 1, 0)
        weights = 1.0 / (np.arange(ARTICLES) + 60.0)
        return cls(
            numbers.astype(str).astype(object) + suffix, np.array(names, object), prices, weights / weights.sum()
        )

    def no_products(self, which: Ints) -> tuple[Texts, Texts]:
        """Codes and descriptions of what is no product: postage, discounts, charges."""
        index = which % len(_NO_PRODUCTS)
        return _NO_PRODUCTS[index], _NO_PRODUCT_NAMES[index]
