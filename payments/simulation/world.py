"""The world the business lives in: countries with their cities, clocks and money, and what each kind of shop is like.

Rates here only give amounts a plausible size in each currency; reporting converts with the warehouse's own dated rates.
Clocks are standard offsets from UTC, without daylight saving time: an hour of error does not change a daily curve.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Money:
    """A currency: decimals of its minor unit, units a US dollar, price steps and usual fees in minor units."""

    code: str
    exponent: int
    per_dollar: float
    price_step: int
    fee_fixed: int
    dispute_fee: int


@dataclass(frozen=True)
class Country:
    """A country: its share of the customers, its clock (minutes from UTC), money, language and cities by size."""

    code: str
    currency: str
    utc_offset_minutes: int
    share: float
    locale: str
    calling_code: str
    cities: tuple[str, ...]


@dataclass(frozen=True)
class Category:
    """A kind of shop: typical basket (median, US dollars), spread, daily curve and what tends to go wrong.

    `terminal_share` is the part of its payments taken at a terminal; `refund_rate` and `dispute_rate` are parts of the
    successful payments, disputes without fraud. Some authorize first and capture later, some sell subscriptions.
    """

    mcc: str
    noun: str
    share: float
    median_dollars: float
    spread: float
    curve: str
    terminal_share: float
    decline_rate: float
    refund_rate: float
    dispute_rate: float
    captures_later: bool = False
    sells_subscriptions: bool = False


MONIES = (
    Money("USD", 2, 1.0, 1, 30, 1500),
    Money("EUR", 2, 0.88, 1, 25, 1500),
    Money("GBP", 2, 0.76, 1, 20, 1500),
    Money("JPY", 0, 150.0, 10, 30, 1300),
    Money("KWD", 3, 0.31, 5, 100, 5000),
    Money("CAD", 2, 1.37, 1, 30, 1500),
    Money("AUD", 2, 1.45, 1, 30, 2500),
    Money("BRL", 2, 5.1, 1, 50, 5500),
    Money("INR", 2, 86.0, 100, 300, 100000),
    Money("SEK", 2, 9.8, 100, 180, 15000),
)

COUNTRIES = (
    Country(
        "US", "USD", -300, 0.30, "en_US", "+1", ("New York", "Los Angeles", "Chicago", "Austin", "Seattle", "Miami")
    ),
    Country("GB", "GBP", 0, 0.12, "en_GB", "+44", ("London", "Manchester", "Birmingham", "Leeds", "Glasgow")),
    Country("DE", "EUR", 60, 0.10, "de_DE", "+49", ("Berlin", "Hamburg", "Munich", "Cologne", "Leipzig")),
    Country("JP", "JPY", 540, 0.09, "ja_JP", "+81", ("Tokyo", "Osaka", "Nagoya", "Sapporo", "Fukuoka")),
    Country("FR", "EUR", 60, 0.08, "fr_FR", "+33", ("Paris", "Lyon", "Marseille", "Toulouse", "Lille")),
    Country("KW", "KWD", 180, 0.04, "ar_AA", "+965", ("Kuwait City", "Hawally", "Salmiya")),
    Country("ES", "EUR", 60, 0.05, "es_ES", "+34", ("Madrid", "Barcelona", "Valencia", "Seville")),
    Country("IT", "EUR", 60, 0.05, "it_IT", "+39", ("Milan", "Rome", "Turin", "Naples")),
    Country("NL", "EUR", 60, 0.04, "nl_NL", "+31", ("Amsterdam", "Rotterdam", "Utrecht")),
    Country("CA", "CAD", -300, 0.04, "en_CA", "+1", ("Toronto", "Montreal", "Vancouver")),
    Country("AU", "AUD", 600, 0.03, "en_AU", "+61", ("Sydney", "Melbourne", "Brisbane")),
    Country("BR", "BRL", -180, 0.03, "pt_BR", "+55", ("São Paulo", "Rio de Janeiro", "Curitiba")),
    Country("IN", "INR", 330, 0.02, "en_IN", "+91", ("Mumbai", "Bengaluru", "Delhi")),
    Country("SE", "SEK", 60, 0.01, "sv_SE", "+46", ("Stockholm", "Gothenburg", "Malmö")),
)

CATEGORIES = (
    Category("5411", "Market", 0.14, 34.0, 0.60, "food", 0.75, 0.035, 0.010, 0.0003),
    Category("5812", "Kitchen", 0.12, 42.0, 0.55, "food", 0.80, 0.040, 0.008, 0.0004),
    Category("5814", "Bites", 0.08, 13.0, 0.45, "food", 0.85, 0.035, 0.006, 0.0002),
    Category("5651", "Clothing", 0.12, 62.0, 0.60, "retail", 0.25, 0.070, 0.110, 0.0035),
    Category("5732", "Electronics", 0.09, 145.0, 0.85, "retail", 0.20, 0.085, 0.070, 0.0050),
    Category("5942", "Books", 0.06, 24.0, 0.50, "retail", 0.30, 0.050, 0.030, 0.0010),
    Category("5912", "Pharmacy", 0.07, 26.0, 0.55, "retail", 0.70, 0.040, 0.010, 0.0004),
    Category("5816", "Games", 0.09, 18.0, 0.70, "digital", 0.0, 0.110, 0.035, 0.0060),
    Category("5818", "Media", 0.08, 11.0, 0.45, "digital", 0.0, 0.090, 0.020, 0.0040, sells_subscriptions=True),
    Category("7372", "Software", 0.06, 79.0, 0.80, "business", 0.0, 0.075, 0.030, 0.0030, sells_subscriptions=True),
    Category("4722", "Travel", 0.05, 310.0, 0.80, "digital", 0.05, 0.100, 0.080, 0.0060),
    Category("8299", "Academy", 0.04, 95.0, 0.65, "business", 0.0, 0.065, 0.045, 0.0030),
    Category("7011", "Hotel", 0.04, 165.0, 0.60, "digital", 0.10, 0.075, 0.030, 0.0025, captures_later=True),
    Category("7512", "Car Rental", 0.02, 140.0, 0.50, "digital", 0.10, 0.080, 0.025, 0.0025, captures_later=True),
)

# Relative volume of each local hour from midnight, and of each weekday from Monday.
HOURS = {
    "retail": (4, 2, 1, 1, 1, 2, 6, 14, 28, 46, 60, 68, 74, 70, 66, 66, 70, 78, 84, 86, 80, 58, 28, 10),
    "food": (3, 1, 1, 1, 1, 3, 14, 34, 40, 32, 36, 66, 96, 78, 42, 38, 46, 74, 98, 92, 60, 32, 14, 6),
    "digital": (22, 13, 8, 6, 5, 6, 12, 22, 32, 38, 42, 46, 52, 50, 48, 50, 54, 62, 72, 84, 92, 86, 66, 40),
    "business": (3, 2, 1, 1, 1, 3, 10, 28, 70, 96, 98, 92, 72, 86, 94, 90, 76, 48, 28, 20, 16, 12, 8, 5),
}
WEEKDAYS = {
    "retail": (0.88, 0.86, 0.90, 0.96, 1.12, 1.32, 1.08),
    "food": (0.80, 0.82, 0.88, 0.98, 1.24, 1.36, 1.02),
    "digital": (0.94, 0.92, 0.94, 0.96, 1.06, 1.12, 1.10),
    "business": (1.22, 1.26, 1.24, 1.20, 1.06, 0.46, 0.36),
}
CURVES = tuple(HOURS)

BRANDS = ("visa", "mastercard", "amex", "discover", "jcb", "unionpay")
FUNDINGS = ("credit", "debit", "prepaid", "unknown")
DEVICE_TYPES = ("mobile", "desktop", "tablet", "terminal")
TERMINAL = DEVICE_TYPES.index("terminal")

FAILURES = (
    "insufficient_funds",
    "do_not_honor",
    "incorrect_cvc",
    "expired_card",
    "processing_error",
    "card_velocity_exceeded",
    "lost_card",
    "stolen_card",
    "incorrect_number",
    "authorization_voided",
    "authorization_expired",
)
(
    INSUFFICIENT_FUNDS,
    DO_NOT_HONOR,
    INCORRECT_CVC,
    EXPIRED_CARD,
    PROCESSING_ERROR,
    VELOCITY,
    LOST_CARD,
    STOLEN_CARD,
    INCORRECT_NUMBER,
    AUTHORIZATION_VOIDED,
    AUTHORIZATION_EXPIRED,
) = range(len(FAILURES))
