"""The International Standard Book Number, in its two lengths."""

import re
import unicodedata


def isbn13(text):
    """The ISBN in the text as 13 digits, or None where there is none or its check digit is wrong."""
    digits = re.sub(r"ISBN(-1[03])?|[-–—\s:]", "", unicodedata.normalize("NFKC", text).upper())
    if re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        values = [10 if digit == "X" else int(digit) for digit in digits]
        is_valid = sum(value * weight for value, weight in zip(values, range(10, 0, -1), strict=True)) % 11 == 0
        return "978" + digits[:9] + _check_digit("978" + digits[:9]) if is_valid else None
    if re.fullmatch(r"97[89][0-9]{10}", digits) and _check_digit(digits[:12]) == digits[12]:
        return digits
    return None


def _check_digit(digits):
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return str(-total % 10)
