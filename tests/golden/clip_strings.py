"""Texts to try a tokenizer with, the same for the same seed."""
import random

WORDS = """a an the red circle moving right on navy background photo of cat dog's we've they'll I'm it's don't isn't
you'd masterpiece, best quality 8k ((detailed)) trending:1.3 [out] {of} 3.14159 2024-11-23 $9.99 50% #tag @you C++ x=y*z
e.g. U.S.A. naïve café résumé Ångström straße STRASSE ΣΊΣΥΦΟΣ İstanbul ıI ǅ ﬁne Ⅷ ½ ² ٣ ४ ๕ ፩ 〇 一二三 日本語 中文 한국어 العربية
עברית हिन्दी ไทย ქართული Ελληνικά Русский тест 'quoted' "double" ''s 'S 'LL !'s `code` ~ ^ _under_score_ --dash— … “ ” ‘s ’s""".split()
EMOJI = ["😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🧑🏿‍🚀", "❤️", "✈", "🔟", "🫠", "1️⃣"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\u1680", "\x0b\x0c", "\u200b", "\ufeff"]
SPECIALS = ["<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "!", "!!!", "<|start", "oftext|>", "<|>", "</w>"]
MARKS = ["\u0301", "\u0300", "\u0327", "\u0334", "\u0345", "\u0323", "\u20dd", "\u093c", "\u0e49", "\u3099", "\u05bc", "\u064b", "\u1ab0"]
CONTROLS = ["\x01", "\x07", "\x1b[31m", "\x7f", "\u0080", "\u200d", "\u202e", "\ufffd", "\ufffe", "\U0010ffff"]
RANGES = [(0x20, 0x7e), (0xa1, 0x24f), (0x370, 0x3ff), (0x400, 0x52f), (0x590, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f),
          (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x2bff), (0x3040, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3),
          (0xf900, 0xfaff), (0xfb00, 0xfdff), (0x1d400, 0x1d7ff), (0x1f300, 0x1faff), (0x20000, 0x2fa1f), (1, 0xd7ff),
          (0xe000, 0x10ffff)]
FIXED = ["", " ", "\n", "!", "a", "İ", "i̇", "İİİ", "ΑΣ", "a\u0301", "\u0301", "\u1e69", "s\u0323\u0307", "s\u0307\u0323",
         "\u212b", "\u2126", "ﬁ", "Å", "\ud55c", "\u1112\u1161\u11ab", "<|startoftext|>", "<|endoftext|>a", "a<|endoftext|>",
         "<|STARTOFTEXT|>!", "!<|STARTOFTEXT|>!", "e!\u0301", "'s", "''s", "'S", "’s", "'re're", "'l", "'", "0123456789",
         "٠١٢", "\u00b2\u00bd", "a1b2", "\u3007", "\U0001d7ce"]
LONG = [("x", 10240), ("é", 5120), ("語", 3413), ("😀", 2560), ("!", 10240), ("ab ", 3413), ("\u0301", 5000), (" ", 10240),
        ("1", 10000), ("a\u0301\u0334", 1000), ("Aa", 5000), ("<|endoftext|>", 700), ("haha", 2560)]


def strings(count, seed):
    rng = random.Random(seed)

    def symbol():
        low, high = rng.choice(RANGES)
        code = rng.randint(low, high)
        return chr(code) if not 0xD800 <= code < 0xE000 else "x"

    def part():
        kind = rng.random()
        if kind < 0.45:
            word = rng.choice(WORDS)
            return word.upper() if rng.random() < 0.15 else word.title() if rng.random() < 0.15 else word
        if kind < 0.55:
            return "".join(symbol() for _ in range(rng.randint(1, 8)))
        if kind < 0.62:
            low, high = rng.choice(RANGES[:-2])
            return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 12)))
        if kind < 0.70:
            return rng.choice(EMOJI)
        if kind < 0.78:
            return rng.choice("aeonzAEÖשकが한") + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 4)))
        if kind < 0.86:
            return rng.choice(SPECIALS)
        if kind < 0.90:
            return rng.choice(CONTROLS)
        if kind < 0.95:
            return str(rng.randint(0, 10**rng.randint(1, 9)))
        return rng.choice("abcXYZ!?.'漢") * rng.randint(2, 60)

    out = FIXED + [unit * times for unit, times in LONG]
    while len(out) < count:
        parts = []
        for _ in range(rng.choice([1, 2, 3, 5, 8, 20, 60])):
            parts.append(part())
            if rng.random() < 0.75:
                parts.append(rng.choice(SPACES) if rng.random() < 0.3 else " ")
        text = "".join(parts)
        if rng.random() < 0.02:
            text = (text * (10240 // max(1, len(text.encode())) + 1)).encode()[:10240].decode("utf-8", "ignore")
        out.append(text.replace("\0", ""))
    return out[:count]
