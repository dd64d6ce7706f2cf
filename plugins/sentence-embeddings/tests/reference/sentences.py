"""Sentences for the comparison: common ones, and edge cases for tokenizers."""

import random

WORDS = """the a of and to in is was for on that with as it by at from his her they which not are be had this have or an but
river mountain glacier summit valley harbour bridge engine railway signal orchestra violin melody chorus painter canvas
protein enzyme membrane neuron galaxy nebula comet orbit crater molecule catalyst polymer reactor turbine voltage circuit
compiler scheduler latency throughput packet socket kernel tokenizer embedding gradient tensor matrix vector eigenvalue
bakery flour sourdough cinnamon saffron olive vineyard harvest orchard beekeeper meadow thunderstorm drought monsoon
parliament treaty senate verdict tribunal ordinance census referendum inflation tariff dividend mortgage ledger invoice
running quickly slowly unexpectedly beautifully internationalisation antidisestablishmentarianism""".split()

ODD = [
    "",
    " ",
    "\n\t\r\n",
    ".",
    "a",
    "?!?!…",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    "Ça va? Le garçon naïf dîne à l'hôtel, où Zoë l'attend.",
    "Straße, Öl, Äpfel und Übermut: größer als gewöhnlich.",
    "Ο γρήγορος καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "敏捷的棕色狐狸跳过了懒狗。",
    "いろはにほへと ちりぬるを わかよたれそ",
    "다람쥐 헌 쳇바퀴에 타고파.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "👩‍🚀🚀🌕 to the moon 🎉🎉🎉",
    "e\u0301 is é, and A\u030a is Å, and \ufb01 is fi",
    "zero\u200bwidth\u200djoiner and soft\u00adhyphen and \ufeffbyte order mark",
    "\u0000nul and \u0007bell and \u001b[31mescape",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕞𝕒𝕥𝕙 ①②③ ½ ⅷ ℃ ㎏",
    "ǅ ß ſ İ ı Ł ø æ Þ",
    "[CLS] [SEP] [MASK] [PAD] [UNK] are words here",
    "##ing ##s not##a##prefix",
    "1234567890 3.14159 1,000,000.00 -42 +7 1e-9 0xdeadbeef",
    "user@example.org https://example.org/a/b?c=d&e=f#g C:\\temp\\file.txt",
    "fn main() { println!(\"{}\", 1 << 3); } // code",
    "don't can't it's o'clock rock'n'roll state-of-the-art",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "supercalifragilisticexpialidocious" * 10,
    "word " * 253 + "end",
    "word " * 254 + "end",
    "word " * 255 + "end",
    "word " * 256 + "end",
    "word " * 2000,
    "中" * 400,
    "a" + "\u0301" * 300,
    "tab\tseparated\tvalues\nand\nlines\r\nof text",
    "   leading and trailing   ",
    "many      spaces      between",
]


def sentences(count=200):
    source = random.Random(20)
    made = list(ODD)
    while len(made) < count:
        length = min(400, max(2, round(source.lognormvariate(3.0, 0.9))))
        words = [source.choice(WORDS) for _ in range(length)]
        made.append(" ".join(words).capitalize() + ".")
    return made
