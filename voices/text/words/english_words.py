"""The words that voices.text.words.english puts for signs and abbreviations."""

from __future__ import annotations

import re
from collections.abc import Iterable


def alternatives(words: Iterable[str]) -> str:
    """A pattern of any of them, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MONTHS = {name.lower(): name for name in _MONTHS} | {name[:3].lower(): name for name in _MONTHS} | {"sept": "September"}
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
WEEKDAYS = (
    {name: name for name in _DAYS} | {name[:3]: name for name in _DAYS} | {"Tues": "Tuesday", "Thurs": "Thursday"}
)

# one, many, a hundredth, hundredths
MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("US dollar", "US dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "NT$": ("Taiwan dollar", "Taiwan dollars", "", ""),
    "S$": ("Singapore dollar", "Singapore dollars", "cent", "cents"),
    "R$": ("real", "reais", "centavo", "centavos"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "₺": ("lira", "lira", "kurus", "kurus"),
    "₫": ("dong", "dong", "", ""),
    "₱": ("peso", "pesos", "centavo", "centavos"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "₦": ("naira", "naira", "kobo", "kobo"),
    "₴": ("hryvnia", "hryvnias", "kopek", "kopeks"),
    "฿": ("baht", "baht", "satang", "satang"),
    "¢": ("cent", "cents", "", ""),
}
CURRENCIES = {
    "USD": MONEY["US$"],
    "AUD": MONEY["A$"],
    "CAD": MONEY["C$"],
    "HKD": MONEY["HK$"],
    "TWD": MONEY["NT$"],
    "SGD": MONEY["S$"],
    "EUR": MONEY["€"],
    "GBP": MONEY["£"],
    "JPY": MONEY["¥"],
    "INR": MONEY["₹"],
    "KRW": MONEY["₩"],
    "CNY": ("yuan", "yuan", "fen", "fen"),
    "RMB": ("yuan", "yuan", "fen", "fen"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "SEK": ("Swedish krona", "Swedish kronor", "ore", "ore"),
    "NOK": ("Norwegian krone", "Norwegian kroner", "ore", "ore"),
    "DKK": ("Danish krone", "Danish kroner", "ore", "ore"),
    "PLN": ("zloty", "zlotys", "grosz", "groszy"),
    "Rs": ("rupee", "rupees", "paisa", "paise"),
}


def _units() -> dict[str, tuple[str, str]]:
    table = """
    km kilometer|cm centimeter|mm millimeter|nm nanometer|μm micrometer|m meter|mi mile|ft feet:foot|in inches:inch
    yd yard|kg kilogram|mg milligram|g gram|t ton|lb pound|lbs pound|oz ounce|ml milliliter|mL milliliter|l liter
    L liter|cl centiliter|gal gallon|ha hectare|kWh kilowatt hour|kW kilowatt|MW megawatt|GW gigawatt|W watt|V volt
    kV kilovolt|mV millivolt|A ampere|mA milliampere|mAh milliampere hour|Ω ohm|J joule|kJ kilojoule|kcal kilocalorie
    cal calorie|Hz hertz:hertz|kHz kilohertz:kilohertz|MHz megahertz:megahertz|GHz gigahertz:gigahertz|dB decibel
    KB kilobyte|kB kilobyte|MB megabyte|GB gigabyte|TB terabyte|PB petabyte|kb kilobit|Mb megabit|Gb gigabit
    Mbps megabits per second:megabit per second|Gbps gigabits per second:gigabit per second
    mph miles per hour:mile per hour|km/h kilometers per hour:kilometer per hour
    kmh kilometers per hour:kilometer per hour|kph kilometers per hour:kilometer per hour
    m/s meters per second:meter per second|hr hour|hrs hour|h hour|min minute|mins minute|sec second|secs second
    ms millisecond|s second|hPa hectopascal|kPa kilopascal|Pa pascal|N newton|px pixel
    fps frames per second:frame per second
    rpm revolutions per minute:revolution per minute|ppm parts per million:part per million
    """
    units: dict[str, tuple[str, str]] = {}
    for entry in re.split(r"[|\n]", table):
        sign, _, names = entry.strip().partition(" ")
        if sign:
            many, _, one = names.partition(":")
            units[sign] = (one, many) if one else (many, many + "s")
    return units


UNITS = _units()

SIGNS = {
    "<=": "less than or equal to", "≤": "less than or equal to", ">=": "greater than or equal to",
    "≥": "greater than or equal to", "!=": "is not equal to", "≠": "is not equal to", "==": "equals",
    "=>": "", "->": "to", "→": "to", "←": "from", "<-": "from", "=": "equals", "<": "less than", ">": "greater than",
    "+": "plus", "±": "plus or minus", "×": "times", "÷": "divided by", "≈": "approximately", "∞": "infinity",
    "√": "square root of", "&": "and", "°": "degrees", "№": "number", "§": "section", "¶": "paragraph", "∑": "sum of",
    "∫": "integral of", "©": "copyright", "®": "registered", "™": "trademark", "~": "about", "^": "to the power of",
    "µ": "micro", "π": "pi", "@": "at", "|": "", "`": "", "*": "", "\\": "backslash", "#": "", "∆": "delta",
}  # fmt: skip

# Before a name or a number; a full stop follows in the text.
TITLES = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor", "St": "Saint", "Mt": "Mount",
    "Ft": "Fort", "Sgt": "Sergeant", "Capt": "Captain", "Col": "Colonel", "Gen": "General", "Lt": "Lieutenant",
    "Rev": "Reverend", "Hon": "Honorable", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative",
    "Pres": "President", "Maj": "Major", "Cpl": "Corporal", "Adm": "Admiral",
}  # fmt: skip
ABBREVIATIONS = {
    "approx": "approximately", "apt": "apartment", "etc": "et cetera", "e.g": "for example", "i.e": "that is",
    "vs": "versus", "fig": "figure", "figs": "figures", "eq": "equation", "vol": "volume", "vols": "volumes",
    "pp": "pages", "p": "page", "ch": "chapter", "sec": "section", "no": "number", "nos": "numbers", "ext": "extension",
    "tel": "telephone", "dept": "department", "est": "established", "al": "al", "ave": "avenue", "blvd": "boulevard",
    "rd": "road", "hwy": "highway", "bldg": "building", "jr": "junior", "sr": "senior", "inc": "incorporated",
    "corp": "corporation", "ltd": "limited", "co": "company", "max": "maximum", "min": "minimum", "cf": "compare",
    "ca": "circa", "intl": "international", "govt": "government", "univ": "university", "assn": "association",
}  # fmt: skip

# Rulers and popes: their numeral is an ordinal.
REGNAL = frozenset(
    str.split(
        "Henry Louis George Edward Elizabeth Charles James William Richard John Paul Pius Benedict Leo Gregory Clement "
        "Innocent Alexander Nicholas Catherine Peter Frederick Philip Ferdinand Napoleon Mary Victoria Francis Otto "
        "Boniface Urban Julius Sixtus Adrian Stephen Haakon Olav Harald Gustav Carl Christian Margrethe Albert Leopold "
        "Baudouin Rama Ramesses Rameses Ramses Amenhotep Thutmose Ptolemy Cleopatra Darius Xerxes Cyrus Robert David "
        "Alfonso Isabella Joanna Manuel Pedro Afonso Sancho Ivan Feodor Selim Mehmed Murad Suleiman Bayezid "
        "Wilhelm Friedrich Heinrich Karl Ludwig Maximilian Rudolf Leonard Beatrix Wilhelmina Juliana Anne Jane"
    )
)
ROMAN_CUES = frozenset(
    str.split(
        "Chapter chapter Part part Act act Scene scene Volume volume Vol Book book Section section War Article article "
        "Type type Phase phase Title title Level level Class class Grade grade Stage stage Appendix Figure Table Mark "
        "Bowl Olympiad Season season Episode episode Unit unit Lesson lesson Tier tier Group group Schedule Annex "
        "Amendment Category category Factor Apollo Rocky Rambo Saturn Titan Fantasy Wars"
    )
)
SHOUTED = frozenset(
    str.split(
        "ALL AND ANY ARE AS AT BAD BE BIG BUT BY CAN DAY DID DO DON'T FOR FROM GET GO GOOD HAD HAS HAVE HE HER HERE "
        "HIM HIS HOW IF INTO IS ITS JUST LIKE ME MORE MOST MUST MY NEVER NEW NO NOT NOW OF OFF OLD ON ONE ONLY OR OUR "
        "OUT OVER SAID SEE SHE SO STOP SUCH THAN THAT THE THEIR THEM THEN THERE THEY THIS TO TOO TWO UP VERY WAS WE "
        "WERE WHAT WHEN WHY WILL WITH YES YOU YOUR"
    )
)
