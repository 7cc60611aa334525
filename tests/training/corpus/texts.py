"""English texts that a test can tell apart, and that the filters keep."""

from __future__ import annotations

import random

_NOUNS = """worker bucket manifest scheduler document tokenizer reader window letter garden river engineer teacher
market question answer village engine paper station winter morning kitchen history bridge ticket doctor harbour
mountain library lesson corner journey machine problem season captain factory shoulder valley theatre""".split()
_VERBS = """writes keeps finds carries opens follows reads forgets mends counts brings leaves moves paints orders
answers remembers measures closes borrows""".split()
_ENDS = """before the end of the day|when nobody is looking|because it has to be done|without a word to the others|
after a long time|in the middle of the night|as soon as there is room for it|although it was told not to|
while the others wait outside|for the second time this year""".replace("\n", "").split("|")


def english(number: int, words: int = 120) -> str:
    """Sentences of English words, others for each number; of about that many words."""
    draw = random.Random(number)
    sentences: list[str] = []
    while sum(map(len, map(str.split, sentences))) < words:
        first, second = draw.sample(_NOUNS, 2)
        sentences.append(f"The {first} {draw.choice(_VERBS)} a {second} {draw.choice(_ENDS)}.")
    return "\n".join(sentences)


GERMAN = """Der Planer führt jede Aufgabe aus, sobald alle Aufgaben davor erledigt sind. Ein Arbeiter, der verloren
geht, wird ersetzt, und seine Aufgabe beginnt von vorn. Was sie geschrieben hat, bleibt liegen, bis jemand es liest."""
CHINESE = """调度器在上游任务完成后运行每个任务。如果一个工作进程丢失，它会被替换，任务会从头开始。
我们把数据保存在存储桶里，并且每次提交都会写入一个清单文件，因此读者总是看到完整的结果，而不会看到一半的结果。
如果两个运行同时提交，其中一个会失败并重试。这样做的好处是显而易见的：没有人会丢失数据，也没有人需要在夜里起床。
春天来了，花园里的树开始发芽，孩子们在河边玩耍，老人坐在长椅上看报纸，谈论着去年的冬天有多么寒冷和漫长。"""
HINDI = """अनुसूचक प्रत्येक कार्य को तब चलाता है जब उससे पहले के सभी कार्य पूरे हो जाते हैं। यदि कोई कार्यकर्ता खो जाता है, तो उसे
बदल दिया जाता है और उसका कार्य फिर से शुरू होता है। हम डेटा को सुरक्षित रखते हैं और हर बार एक सूची लिखते हैं।"""


def gibberish(number: int, words: int = 80) -> str:
    """Words of random letters."""
    draw = random.Random(number)
    return " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(words))
