"""What the example knows about a customer: the views, their facts, the dimension "aisle", and the names others use.

An adopter rewrites this file and `facts.py` (how events become these facts), the catalogue and one loader; the rest of
the house reads the declarations and knows nothing of groceries.
"""

from __future__ import annotations

from features.layout import Fact, Kind, Layout, View

PROJECT = "nba"
ENTITY = "customer"
JOIN_KEY = "customer_id"
FEATURE_SERVICE = "nba_customer"
REGISTERED_MODEL = "nba-propensity"

UTC_OFFSET_HOURS = -5
"""Local days of the example are days of a fixed UTC-5: with it the transactions fill exactly the year 2017."""

HALF_LIVES_DAYS = (7, 28, 91, 364)
RECENT_DAYS = 64
"""How many of the latest shopping days a customer's row keeps; journey stages are derived from them."""

AISLES = (
    "baby", "beef_fresh_meat", "body_hair_care", "bread_bakery", "breakfast_cereal", "canned_goods", "cheese",
    "coffee_tea", "condiments", "cosmetics", "deli", "dough_margarine", "frozen_meals", "frozen_pizza",
    "frozen_veg_bread", "fuel", "health_otc", "household_cleaning", "ice_cream_dessert", "juice", "laundry",
    "lunchmeat", "milk_eggs", "nutrition_natural", "oral_care", "paper", "pasta_dinners_rice", "pet", "produce",
    "salty_sweet_snacks", "seafood", "soft_drinks_water", "other",
)  # fmt: skip
CAMPAIGN_TYPES = ("a", "b", "c")
STAGES = ("new", "active", "loyal", "lapsing", "lapsed", "returned")
"""Journey stages; `matrix.journey_columns` decides which one a customer is in as of a decision time."""

DIMENSIONS: dict[str, tuple[str, ...]] = {"aisle": AISLES}


def _decayed(
    name: str, what: str, per: str | None = None, half_lives: tuple[int, ...] = HALF_LIVES_DAYS
) -> tuple[Fact, ...]:
    length = len(DIMENSIONS[per]) if per else 1
    return tuple(
        Fact(f"{name}_h{days}", Kind.DECAYED, f"{what}, half-life {days} days", float(days), per=per, length=length)
        for days in half_lives
    )


def _per_aisle(name: str, kind: Kind, description: str) -> Fact:
    return Fact(name, kind, description, per="aisle", length=len(AISLES))


def _category(name: str, description: str, *vocabulary: str) -> Fact:
    return Fact(name, Kind.CATEGORY, description, vocabulary=vocabulary)


def _anchor(name: str, last: str) -> Fact:
    return Fact(name, Kind.ANCHOR, f"Moment to which this view's decayed sums are anchored: {last}")


PROFILE = View(
    "profile",
    "Declared demographics of the household, known for about a third; missing stays missing.",
    (
        Fact("profile_anchor_at", Kind.ANCHOR, "Last declaration; a later one replaces the whole profile"),
        _category("age_band", "Age band of the head", "19-24", "25-34", "35-44", "45-54", "55-64", "65+"),
        _category(
            "income_band", "Yearly household income", "Under 15K", "15-24K", "25-34K", "35-49K", "50-74K", "75-99K",
            "100-124K", "125-149K", "150-174K", "175-199K", "200-249K", "250K+"),
        _category(
            "home_ownership", "Owner or renter", "Homeowner", "Probable Homeowner", "Renter", "Probable Renter"),
        _category("marital_status", "Marital status", "Married", "Unmarried"),
        _category(
            "household_composition", "Composition of the household", "1 Adult Kids", "1 Adult No Kids",
            "2 Adults Kids", "2 Adults No Kids"),
        Fact("household_size", Kind.COUNT, "Persons in the household, 5 = five or more"),
        Fact("kids_count", Kind.COUNT, "Children in the household, 3 = three or more"),
    ),
    max_age_days=800,
)  # fmt: skip

PURCHASES = View(
    "purchases",
    "Rhythm and value of the household's baskets.",
    (
        _anchor("purchases_anchor_at", "the last basket"),
        Fact("first_basket_at", Kind.MOMENT, "First basket ever seen"),
        Fact("last_basket_at", Kind.MOMENT, "Last basket"),
        Fact("last_fuel_at", Kind.MOMENT, "Last purchase of fuel"),
        Fact("baskets_count", Kind.COUNT, "Baskets ever"),
        Fact("spend_total", Kind.COUNT, "Spend ever, USD: what the retailer received"),
        Fact("largest_basket", Kind.COUNT, "Spend of the largest basket, USD"),
        *_decayed("spend", "Spend, USD"),
        *_decayed("baskets", "Baskets"),
        *_decayed("units", "Units other than fuel"),
        *_decayed("lines", "Basket lines", half_lives=(28, 364)),
        *_decayed("spend_squared", "Squares of basket spends, USD^2", half_lives=(91,)),
        *_decayed("weekend_baskets", "Baskets on Saturday or Sunday, local", half_lives=(91,)),
        *_decayed("evening_baskets", "Baskets from 17:00 local", half_lives=(91,)),
        *_decayed("fuel_spend", "Spend on fuel, USD", half_lives=(91,)),
    ),
    max_age_days=400,
)  # fmt: skip

AISLE_HISTORY = View(
    "aisle_history",
    "Per aisle: when and how much the household bought there, one array element an aisle in contract order.",
    (
        _anchor("aisles_anchor_at", "the last basket"),
        _per_aisle("aisle_purchase_at", Kind.MOMENT, "Last purchase in the aisle"),
        _per_aisle("aisle_baskets_count", Kind.COUNT, "Baskets ever with a line of the aisle"),
        *_decayed("aisle_spend", "Spend in the aisle, USD", per="aisle", half_lives=(28, 364)),
        *_decayed("aisle_baskets", "Baskets with a line of the aisle", per="aisle", half_lives=(91,)),
        _per_aisle("aisle_promoted_at", Kind.MOMENT, "Last purchase of a product that stood on a coupon by then"),
        *_decayed("aisle_promoted_spend", "Spend on products that stood on a coupon by then, USD", "aisle", (364,)),
    ),
    max_age_days=400,
)  # fmt: skip

PRICES = View(
    "prices",
    "How sensitive the household is to price: discounts, coupons, own brands.",
    (
        _anchor("prices_anchor_at", "the last basket"),
        Fact("last_coupon_line_at", Kind.MOMENT, "Last basket line paid in part with a coupon"),
        *_decayed("retail_discount", "Loyalty-card discounts, USD", half_lives=(28, 91, 364)),
        *_decayed("coupon_discount", "Coupon discounts, USD", half_lives=(28, 91, 364)),
        *_decayed("coupon_match_discount", "Retailer's matches of coupons, USD", half_lives=(364,)),
        *_decayed("discounted_lines", "Basket lines bought at a discount", half_lives=(28, 91)),
        *_decayed("private_spend", "Spend on own brands, USD", half_lives=(28, 364)),
    ),
    max_age_days=400,
)

CONTACTS = View(
    "contacts",
    "Campaigns sent to the household and what it did with them.",
    (
        _anchor("contacts_anchor_at", "the last contact event"),
        *(Fact(f"last_send_{t}_at", Kind.MOMENT, f"Last campaign of type {t.upper()} sent") for t in CAMPAIGN_TYPES),
        *(Fact(f"last_redemption_{t}_at", Kind.MOMENT, f"Last redemption, type {t.upper()}") for t in CAMPAIGN_TYPES),
        *(Fact(f"sends_{t}_count", Kind.COUNT, f"Campaigns of type {t.upper()} sent ever") for t in CAMPAIGN_TYPES),
        *(Fact(f"redemptions_{t}_count", Kind.COUNT, f"Redemptions ever, type {t.upper()}") for t in CAMPAIGN_TYPES),
        *_decayed("sends", "Campaigns sent", half_lives=(28, 91)),
        *_decayed("redemptions", "Coupons redeemed", half_lives=(28, 91, 364)),
        _per_aisle("aisle_redemptions_count", Kind.COUNT, "Coupons of the aisle redeemed ever"),
        _per_aisle("aisle_redemption_at", Kind.MOMENT, "Last coupon of the aisle redeemed"),
    ),
    max_age_days=400,
)  # fmt: skip

JOURNEY = View(
    "journey",
    "What journey stages are derived from.",
    (
        Fact("first_seen_at", Kind.MOMENT, "First basket or contact"),
        Fact(
            "shopping_days",
            Kind.RECENT,
            "The latest distinct local shopping days, as days since 1970-01-01, ascending",
            length=RECENT_DAYS,
        ),
    ),
    max_age_days=400,
)

LAYOUT = Layout((PROFILE, PURCHASES, AISLE_HISTORY, PRICES, CONTACTS, JOURNEY), DIMENSIONS)

RATIOS = (
    ("basket_value", "spend_h364", "baskets_h364"),
    ("basket_value_recent", "spend_h28", "baskets_h28"),
    ("spend_trend", "spend_h28", "spend_h364"),
    ("baskets_trend", "baskets_h28", "baskets_h364"),
    ("discount_share", "retail_discount_h364", "spend_h364"),
    ("coupon_share", "coupon_discount_h364", "spend_h364"),
    ("private_share", "private_spend_h364", "spend_h364"),
    ("weekend_share", "weekend_baskets_h91", "baskets_h91"),
    ("evening_share", "evening_baskets_h91", "baskets_h91"),
    ("redemption_rate", "redemptions_h364", "sends_h91"),
    ("aisle_share", "aisle_spend_h364", "spend_h364"),
    ("aisle_rate", "aisle_baskets_h91", "baskets_h91"),
    ("aisle_promoted_share", "aisle_promoted_spend_h364", "aisle_spend_h364"),
)
"""Columns (name, numerator, denominator) that help a tree; with an array fact on top, one element a member."""
