"""Owns the world of the conversations: its words, made names, places and numbers, its filler prose, and what is held out
of training. A value is held out by its own checksum, so no list has to be kept and training can never meet it."""
import base64, os, random
from zlib import crc32

from voice import Grammar, Style

ANIMALS = "cat dog horse goat sheep duck goose hen fox wolf bear deer mouse rabbit otter badger owl crow hawk swan frog toad newt bee ant moth crab seal whale".split()
FOODS = "apple pear plum cherry lemon grape melon bread cheese butter soup rice bean carrot onion potato tomato pepper cake pie honey jam tea coffee milk egg salt sugar nut fig pizza pasta salad noodles porridge pancakes curry steak fish shrimp olives mango peach yogurt cereal toast waffles garlic mushrooms spinach".split()
THINGS = "lamp chair table desk clock mirror kettle bottle basket blanket hammer nail ladder bucket brush candle book pencil paper letter stamp ticket wallet coat hat boot glove scarf ring bell drum flute rope sail oar map compass lantern wheel cart".split()
# What people own, lose, keep and ask about.
GOODS = THINGS + "car van boat truck scooter tent suitcase backpack laptop phone camera tablet charger cable printer speaker radio guitar violin piano cello trumpet umbrella jacket shirt sweater dress shoes slippers glasses sunglasses watch bracelet necklace passport licence visa key keys keyring notebook diary folder envelope parcel stapler scissors screwdriver drill saw toolbox paint roof fence gate bench sofa couch bed pillow mattress carpet curtain vase plant cactus bowl plate cup mug spoon fork knife pan pot oven fridge freezer toaster blender heater fan helmet skateboard skis sledge kayak canoe racket ball puzzle kite doll toy telescope microscope magnet battery torch medicine pills bandage towel soap razor toothbrush bag purse briefcase trailer tractor caravan motorbike lawnmower wheelbarrow shovel rake hose".split()
COLOURS = "red blue green yellow white black grey brown purple orange pink silver gold teal beige violet crimson turquoise maroon navy".split()
JOBS = "baker farmer teacher nurse doctor sailor miller tailor painter singer writer driver pilot gardener cook clerk judge potter weaver carpenter plumber electrician engineer lawyer dentist vet chemist librarian waiter barber butcher florist mechanic musician actor dancer journalist photographer translator architect soldier fireman postman cleaner manager accountant student researcher programmer designer editor shepherd fisherman".split()
SPOTS = "shed barn attic cellar garage office library kitchen garden harbour station market bakery mill tower bridge school museum chapel inn hall bathroom bedroom basement balcony workshop pantry stable cabin hospital hotel cinema theatre church castle pool gym park".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SKIES = "rain sun snow fog wind cloud hail".split()
REAL_NAMES = "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Mary Nora Oscar Paul Rosa Sam Tessa Victor Wendy Yara Zoe Adam Bella Carl Diana Erik Flora Hugo Ida Jonas Lena Max Nina Otto Petra Ralf Sara Tom Alexander Amelia Andrew Angela Barbara Benjamin Catherine Charlotte Christopher Daniel Deborah Dorothy Edward Eleanor Elizabeth Emily Ethan Francis Gabriel George Gloria Hannah Isabella Jacob James Jennifer Jessica John Jonathan Joseph Joshua Julia Karen Kevin Laura Linda Lucas Margaret Maria Mark Martin Matthew Michael Michelle Mohammed Natalie Nathan Nicholas Olivia Patricia Peter Philip Rachel Rebecca Richard Robert Samuel Sandra Sophia Stephanie Steven Susan Thomas Timothy Vincent Virginia William Ahmed Fatima Hiroshi Yuki Wei Ling Priya Arjun Sanjay Ananya Kwame Amara Ngozi Diego Carlos Lucia Sofia Giovanni Giulia Pierre Camille Claude Jean Ingrid Lars Sven Astrid Dmitri Olga Ivan Natasha Zeynep Mehmet Aisha Omar Layla Yusuf".split()
REAL_PLACES = "Paris London Berlin Madrid Rome Vienna Prague Oslo Stockholm Helsinki Copenhagen Amsterdam Brussels Lisbon Dublin Athens Warsaw Budapest Zurich Geneva Munich Hamburg Cologne Milan Naples Turin Florence Barcelona Seville Valencia Porto Lyon Bordeaux Toulouse Nantes Strasbourg Manchester Liverpool Glasgow Edinburgh Bristol Oxford Cambridge Moscow Istanbul Cairo Tokyo Kyoto Osaka Seoul Beijing Shanghai Mumbai Delhi Bangkok Hanoi Manila Jakarta Sydney Melbourne Auckland Toronto Montreal Vancouver Chicago Boston Seattle Denver Dallas Houston Atlanta Miami Havana Lima Bogota Santiago Nairobi Lagos Accra Tunis Tehran Kabul Lahore Canada France Japan Brazil Kenya Norway India Egypt Peru Spain Chile Ghana Nepal Cuba Italy Poland Germany Sweden Finland Denmark Greece Turkey China Mexico Argentina".split()
RELATIVES = "sister brother mother father aunt uncle cousin wife husband daughter son grandmother grandfather mum dad niece nephew".split()
FOLK = "teacher boss neighbour doctor dentist landlord roommate coach friend colleague lawyer plumber hairdresser partner girlfriend boyfriend manager tutor".split()
PETS = "dog cat horse rabbit hamster parrot goldfish tortoise pony goat hen snake lizard puppy kitten bunny budgie turtle ferret canary gerbil donkey gecko".split()
EVENTS = "choir practice|band practice|swimming lesson|book club|vet appointment|gym session|school play|blood test|eye test|zoom call|training|staff meeting|tea party|checkup|dentist|vet|hair appointment|meeting dentist appointment|interview|exam|party|concert|flight|train|bus|lecture|class|lesson|wedding|dinner|lunch|breakfast|doctor's appointment|haircut|football match|game|rehearsal|deadline|delivery|holiday|vacation|conference|check-up|tennis match|piano lesson|driving test|yoga class|job interview|parents' evening|phone call|shift|workshop|picnic|barbecue|reunion".replace("meeting dentist", "meeting|dentist").split("|")
INSTRUMENTS = "piano violin guitar flute drums cello trumpet harp organ clarinet saxophone banjo".split()
LANGUAGES = "French German Spanish Italian Portuguese Dutch Polish Russian Turkish Arabic Hindi Chinese Japanese Korean Swedish Greek English".split()
SUBJECTS = "history physics chemistry biology maths law medicine music art geography economics philosophy geology astronomy literature".split()
SPORTS = "tennis football chess hockey golf rugby cricket badminton volleyball basketball poker darts".split()
# Words of the wide world: enough that a question about it is known for one.
NOUNS = """people child woman man family house city country world river mountain sea ocean lake forest desert island planet star moon sky earth light water fire air ice stone metal iron copper oil gas coal energy power heat cold weather storm season spring summer autumn winter year month week day hour minute morning evening night century war peace king queen prince president minister government law court police army church religion god history science art music song dance film movie theatre poem poet novel author painter painting language word sentence grammar story news newspaper internet computer robot software program machine engine train ship plane rocket bridge road street building tower castle palace temple pyramid wall window door room floor village town capital population flag money bank price tax company factory market trade job worker salary school university student lesson exam degree number sum root square triangle circle angle temperature speed distance weight height length volume mass gravity force atom molecule cell gene virus disease fever pain medicine blood heart brain lung liver bone muscle skin eye ear nose tooth hair hand foot tree flower grass leaf seed fruit bird insect spider snake lizard elephant tiger lion monkey kangaroo penguin dolphin shark camel dinosaur food meal recipe wine beer chocolate sport game team player goal race winner champion record prize medal dream love hate fear joy anger happiness luck truth life death soul mind idea problem question answer reason meaning secret future past birth age friend enemy hero thief murder crime prison island volcano earthquake flood glacier continent equator ocean current tide wave rain snow cloud rainbow thunder lightning sun shadow colour sound noise silence smell taste electricity battery wire radio television telephone camera clock calendar compass map""".split()
ADJECTIVES = "big small old new long short high low deep fast slow hot cold heavy light rich poor strong weak young famous important dangerous beautiful tall wide bright dark expensive cheap common rare popular good bad best worst biggest smallest largest longest oldest tallest fastest highest deepest hottest coldest richest heaviest".split()
VERBS = "go eat see make find lose build break open close win write read sing draw paint buy sell grow fly swim run walk sleep work stop start move turn hold carry throw catch cut cook wash fix clean learn teach study play pay save send bring keep burn freeze melt boil fall rise live die invent discover explain describe translate solve prove measure create design change join leave visit".split()
COMMON = ANIMALS + FOODS + GOODS + COLOURS + JOBS + SPOTS

ONSETS = "b c d f g h j k l m n p r s t v w z br dr gr kr pl st tr sh th ch cl cr bl fl fr gl pr sc sl sm sp sw qu wh ph kn str scr zh y x".split()
SIMPLE = "b c d f g h j k l m n p r s t v w z".split()
VOWELS = "a e i o u a e i o u a e i o u ai ee oo ea ou ie ia io ei au oa ue y".split()
CODAS = ["", "", "", "", "n", "r", "l", "s", "t", "m", "k", "d", "nd", "rt", "lk", "ll", "ss", "st", "ng", "ck", "x", "p", "b", "g", "f", "ff", "th", "sh", "ch", "rd", "nt", "mp", "ld", "tt", "z", "v", "rn", "ble", "tte", "ne"]
PLACE_HEADS = "Old New Mar Hol Ash Elm Oak Stone Green White Black Wood River North South East West Thorn Fern Hazel Kings Mill Lang Hart Wind Brad Stan Clay Red Silver Winter Summer".split()
PLACE_TAILS = "haven beck ford ton bridge field dale wick mouth stead bury port well gate cliff moor by ham ley combe burg ville grad polis stadt berg heim holm sund vik ana ia ano ella ette".split()
PLURALS = {x for x in GOODS if x[-1] == "s" and x[-2:] not in ("ss", "us", "as")} | {x + "s" for x in GOODS if x[-1] not in "sxyhz"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Letters with marks, by the plain ones that they stand for in made-up names; and real names and places that have them.
MARKS = dict(a="áàâäãåæąăā", c="çćč", d="ďđð", e="éèêëęěē", g="ğ", i="íìîïı", l="łľ", n="ñńň", o="óòôöõøőœ", r="řŕ", s="śšşß", t="ťţþ", u="úùûüůűū", y="ýÿ", z="źžż")
MARKED_NAMES = "Chloë Renée André Björn Søren Jürgen Günther Åsa Øyvind Ólafur Sigríður Þór Siân Seán Róisín Pádraig Beyoncé Raúl Iñaki Begoña Inés João Conceição Gonçalo Małgorzata Paweł Stanisław Zdeněk Jiří Tomáš Lukáš Nóra Zoltán Györgyi Gáspár Ayşe Çağla Gül Ștefan Mădălina Đorđe Željko Šárka Häkkinen Väinö Jõgi Kärt Zoé Anaïs Loïc Hélène Benoît Françoise Aimée Élodie Noël Maëlle Jérôme Agnès Ève Tëa Martín Sofía Lucía Nuñez Peña Gößler Jäger Schröder Böll Köhler Strauß Weiß Bäcker Dvořák Čapek Škoda".split()
MARKED_PLACES = "Kraków Poznań Wrocław Malmö Göteborg Örebro Umeå Luleå Växjö Jyväskylä Hämeenlinna Seinäjoki Bodø Ålesund Tønsberg Køge Næstved Rønne Helsingør München Köln Düsseldorf Nürnberg Lübeck Tübingen Göttingen Würzburg Zürich Genève Neuchâtel Besançon Nîmes Orléans Béziers Mâcon Angoulême Compiègne Córdoba Málaga Cádiz Jaén León Logroño Coruña Évora Setúbal Guimarães Maringá Goiânia Brasília Bogotá Medellín Cúcuta Mérida Cancún Querétaro Tórshavn Akranes Kópavogur Pécs Győr Székesfehérvár Brașov Iași Plzeň Děčín Třebíč Košice Žilina Çorum Muğla Eskişehir Niš Čačak Tromsdalen Jõgeva Pärnu Kärdla Daugavpils Rēzekne Šiauliai Klaipėda".split()


def words_of(model):
    """The words that are one token each of a model's tokenizer."""
    with open(os.path.join(model, "tiktoken.model"), "rb") as f: tokens = [base64.b64decode(line.split()[0]) for line in f]
    texts = (t.decode(errors="replace").strip().lower() for t in tokens)
    return sorted({t for t in texts if len(t) > 1 and t.isascii() and t.isalpha()})


def held(value):
    return crc32(str(value).lower().encode()) % 8 == 0


class World:
    """Draws values from one side of the split. `split` is "train" or "held"."""
    PIECES = ()                                           # words that are one token: their letters must be learnt one by one

    def __init__(self, seed, split="train"):
        self.rng, self.held = random.Random(seed), split == "held"
        self.r, self.int = self.rng.random, lambda a, b: a + int(self.rng.random() * (b - a + 1))
        self.style = Style(self)

    def one(self, options):
        return options[int(self.r() * len(options))]

    def some(self, options, n):
        return self.rng.sample(options, n)

    def say(self, grammar):
        """One frame of a grammar (a string with (a|b) alternatives, or several). Of a grammar with many frames those
        whose checksum falls in an eighth, and all that hold a ~ alternative, belong to the held-out side alone."""
        return Grammar.of(grammar).draw(self)

    def mine(self, draw):
        """Draws until the value lies on this side of the split."""
        while True:
            v = draw()
            if held(v) == self.held: return v

    def syllables(self, n):
        o = self.one
        return "".join((o(SIMPLE) if self.r() < 0.6 else o(ONSETS) if i or self.r() < 0.75 else "") + o(VOWELS) + o(CODAS) for i in range(n))

    def pseudo(self, low=3, high=8):
        while True:
            w = self.syllables(self.one((1, 2, 2, 2, 3)))
            if low <= len(w) <= high: return w

    def string(self):
        """3 to 20 letters of any kind, rarely more than 14: the slot of spelling, counting and reversing."""
        a = self.r()
        if a < 0.02: return str(self.int(100, 999999))
        if a < 0.3:
            n = self.int(3, 14) if self.r() < 0.85 else self.int(15, 20); return "".join(self.one(LETTERS) for _ in range(n))
        if a < 0.45:
            few = self.some(LETTERS, self.int(1, 4)); n = self.int(3, 14)
            if self.r() < 0.5: return "".join(self.one(few) for _ in range(n))
            return "".join(self.one(few) * self.int(1, 5) for _ in range(4))[:n]       # in runs
        if a < 0.52: return self.babble()
        if a < 0.67 and self.PIECES:
            while True:
                w = "".join(self.one(self.PIECES) for _ in range(self.int(1, 3)))
                if 3 <= len(w) <= 14: return w
        while True:
            w = self.syllables(self.int(1, 5))
            if 3 <= len(w) <= 14: return w

    def babble(self):
        """A long word of few different letters, as a count of letters finds hard: "bananarama"."""
        few = self.some("aeiou", self.one((1, 1, 2))), self.some(LETTERS, self.int(1, 3)); n = self.int(6, 13)
        w = "".join(self.one(few[i % 2]) if self.r() < 0.85 else self.one(few[1]) for i in range(n))
        return w if self.r() < 0.6 else (self.syllables(self.int(2, 4)) * 2)[:n]

    def made_word(self): return self.mine(self.pseudo)

    def word(self):
        """For the letter tasks. Words that are one token are never held out: nothing else tells their letters."""
        a = self.r()
        if self.r() < 0.04:
            if not self.held and a < 0.4: return self.one(MARKED_NAMES + MARKED_PLACES)
            return self.mine(lambda: self.marked(self.pseudo(3, 10)))
        if self.held:
            while True:
                w = self.mine(self.string)
                if w not in self.PIECES and w not in COMMON: return w
        if a < 0.2 and self.PIECES: return self.one(self.PIECES)
        if a < 0.4: return self.mine(lambda: self.one(COMMON + NOUNS + VERBS + ADJECTIVES))
        w = self.mine(self.string)
        return w.capitalize() if a > 0.95 else w

    def marked(self, word):
        """One or two of its letters with a mark on them."""
        spots = [i for i, ch in enumerate(word) if ch.lower() in MARKS]
        for i in self.some(spots, min(len(spots), self.one((1, 1, 2)))):
            ch = self.one(MARKS[word[i].lower()])
            word = word[:i] + (ch if word[i].islower() or len(ch.upper()) > 1 else ch.upper()) + word[i + 1:]
        return word

    def name(self):
        if self.r() < 0.06:
            if not self.held and self.r() < 0.6: return self.one(MARKED_NAMES)
            return self.mine(lambda: self.marked(self.pseudo(3, 9).capitalize()))
        if not self.held and self.r() < 0.35: return self.one(REAL_NAMES)
        def draw():
            w = self.syllables(self.one((1, 2, 2, 2, 3, 3, 4)))
            if self.r() < 0.25: w += self.one(["a", "o", "ia", "ella", "illa", "ine", "us", "is", "ina", "y", "ie"])
            return w.capitalize() if 3 <= len(w) <= 11 else draw()
        v = self.mine(draw)
        if self.r() < 0.04: v += " " + self.mine(draw)
        elif self.r() < 0.02: v += "-" + self.mine(draw)
        return v

    def place(self):
        if self.r() < 0.07:
            if not self.held and self.r() < 0.6: return self.one(MARKED_PLACES)
            return self.mine(lambda: self.marked(self.pseudo(4, 10).capitalize()))
        if not self.held and self.r() < 0.2: return self.one(REAL_PLACES)
        def draw():
            a = self.r()
            if a < 0.35: return self.one(PLACE_HEADS) + self.one(PLACE_TAILS)
            w = self.syllables(self.one((1, 1, 2, 2, 3))) + (self.one(PLACE_TAILS) if self.r() < 0.5 else "")
            return w.capitalize() if 3 <= len(w) <= 13 else draw()
        v = self.mine(draw)
        return v if self.r() > 0.05 else self.one(["New ", "San ", "Port ", "Saint ", "Los ", "Fort ", "North ", "West "]) + v

    def item(self):
        """A thing somebody may own, real or made up, with an adjective at times."""
        a = self.r()
        n = self.mine(self.pseudo) if a < 0.2 or self.held and a < 0.6 else self.one(GOODS if self.r() < 0.9 else sorted(PLURALS))
        return n if self.r() < 0.85 else self.one(COLOURS + "old new big small spare second other best".split()) + " " + n

    def number(self, digits): return self.mine(lambda: self.int(10 ** (digits - 1), 10 ** digits - 1))
    def code(self): return self.number(self.one((2, 3, 4, 4, 4, 5, 6)))

    def time(self):
        h, m = self.int(0, 23), self.one(["00", "15", "30", "45", "10", "20", "40", "50", "05", "25", "35", "55"])
        a = self.r()
        return f"{h}:{m}" if a < 0.7 else f"{h % 12 + 1} {self.one(['am', 'pm'])}" if a < 0.85 else f"{h % 12 + 1}:{m}{self.one(['am', 'pm', ' pm', ' am'])}"

    def clock(self): return f"{self.int(0, 23)}:{self.one(['00', '15', '30', '45', '10', '20', '40', '50', '05'])}"
    def date(self): return self.one([f"{self.int(1, 28)} {self.one(MONTHS)}", f"{self.one(MONTHS)} {self.int(1, 28)}", self.one(MONTHS)])

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
