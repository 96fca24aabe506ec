"""Owns the closed world: its words, names, places and numbers, its filler prose, and what is held out of training.
A value is held out by its own checksum, so no list has to be kept and training can never meet it."""
import random
from zlib import crc32

ANIMALS = "cat dog horse goat sheep duck goose hen fox wolf bear deer mouse rabbit otter badger owl crow hawk swan frog toad newt bee ant moth crab seal whale".split()
FOODS = "apple pear plum cherry lemon grape melon bread cheese butter soup rice bean carrot onion potato tomato pepper cake pie honey jam tea coffee milk egg salt sugar nut fig".split()
THINGS = "lamp chair table desk clock mirror kettle bottle basket blanket hammer nail ladder bucket brush candle book pencil paper letter stamp ticket wallet coat hat boot glove scarf ring bell drum flute rope sail oar map compass lantern wheel cart".split()
COLOURS = "red blue green yellow white black grey brown purple orange pink silver gold teal".split()
JOBS = "baker farmer teacher nurse doctor sailor miller tailor painter singer writer driver pilot gardener cook clerk judge potter weaver carpenter".split()
SPOTS = "shed barn attic cellar garage office library kitchen garden harbour station market bakery mill tower bridge school museum chapel inn".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SKIES = "rain sun snow fog wind cloud hail".split()
REAL_NAMES = "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Mary Nora Oscar Paul Rosa Sam Tessa Victor Wendy Yara Zoe Adam Bella Carl Diana Erik Flora Hugo Ida Jonas Lena Max Nina Otto Petra Ralf Sara Tom".split()
COMMON = ANIMALS + FOODS + THINGS + COLOURS + JOBS + SPOTS

ONSETS = "b c d f g h j k l m n p r s t v w z br dr gr kr pl st tr sh th".split()
VOWELS = "a e i o u a e i o u ai ee oo".split()
CODAS = ["", "", "n", "r", "l", "s", "t", "m", "k", "d", "nd", "rt", "lk"]
PLACE_HEADS = "Old New Mar Hol Ash Elm Oak Stone Green White Black Wood River North South East West Thorn Fern Hazel Kings Mill Lang Hart Wind Brad Stan Clay Red Silver Winter Summer".split()
PLACE_TAILS = "haven beck ford ton bridge field dale wick mouth stead bury port well gate cliff moor by ham ley combe".split()


def held(value):
    return crc32(str(value).lower().encode()) % 8 == 0


class World:
    """Draws values from one side of the split. `split` is "train" or "held"."""

    def __init__(self, seed, split="train"):
        self.rng, self.held = random.Random(seed), split == "held"
        self.r, self.int = self.rng.random, lambda a, b: a + int(self.rng.random() * (b - a + 1))

    def one(self, options):
        return options[int(self.r() * len(options))]

    def some(self, options, n):
        return self.rng.sample(options, n)

    def say(self, options):
        """A phrasing; those that open with ~ belong to the held-out side alone, and make up much of it."""
        while True:
            o = self.one(options)
            if o[0] != "~":
                if self.held and self.r() < 0.7 and any(x[0] == "~" for x in options): continue
                return o
            if self.held: return o[1:]

    def mine(self, draw):
        """Draws until the value lies on this side of the split."""
        while True:
            v = draw()
            if held(v) == self.held: return v

    def pseudo(self):
        w = self.one(ONSETS) + self.one(VOWELS) + self.one(CODAS)
        if self.r() < 0.75: w += self.one(ONSETS) + self.one(VOWELS) + self.one(CODAS)
        return w if 3 <= len(w) <= 7 else self.pseudo()

    def made_word(self): return self.mine(self.pseudo)
    def word(self): return self.made_word() if self.held or self.r() < 0.7 else self.one(COMMON)
    def name(self): return self.one(REAL_NAMES) if not self.held and self.r() < 0.4 else self.mine(self.pseudo).capitalize()
    def place(self): return self.mine(lambda: self.one(PLACE_HEADS) + self.one(PLACE_TAILS) if self.r() < 0.7 else self.pseudo().capitalize() + self.one(PLACE_TAILS))
    def number(self, digits): return self.mine(lambda: self.int(10 ** (digits - 1), 10 ** digits - 1))
    def time(self): return f"{self.int(0, 23)}:{self.one(['00', '15', '30', '45', '10', '20', '40', '50', '05'])}"

    def sentence(self):
        o, a = self.one, self.r()
        who = f"the {o(JOBS)}" if self.r() < 0.6 else o(REAL_NAMES)
        if a < 0.2: s = f"{who} walked to the {o(SPOTS)} and looked for a {o(THINGS)}"
        elif a < 0.35: s = f"on {o(DAYS)} {who} bought {o(FOODS)} and {o(FOODS)} at the {o(SPOTS)}"
        elif a < 0.5: s = f"a {o(COLOURS)} {o(ANIMALS)} slept near the {o(SPOTS)} while {who} painted the {o(THINGS)}"
        elif a < 0.62: s = f"{who} told the {o(JOBS)} about the {o(THINGS)} in the {o(SPOTS)}"
        elif a < 0.74: s = f"in {o(MONTHS)} there was {o(SKIES)} over the {o(SPOTS)} for {self.int(2, 9)} days"
        elif a < 0.86: s = f"nobody at the {o(SPOTS)} had seen the {o(ANIMALS)} with the {o(COLOURS)} {o(THINGS)}"
        else: s = f"{who} put the {o(COLOURS)} {o(THINGS)} beside the {o(THINGS)} and waited for {o(SKIES)}"
        return s[0].upper() + s[1:] + "."

    def prose(self, sentences):
        return " ".join(self.sentence() for _ in range(sentences))
