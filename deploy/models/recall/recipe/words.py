"""Word lists and value makers of the memory conversations.

Every value belongs to exactly one side, training or validation, by a hash of its text, so a value
asked for in validation was never a value in training.
"""
import zlib

FIRST = """Ada Ana Amir Amara Anton Aisha Alan Alba Alice Anders Anika Arturo Asha Astrid Ben Bianca Bjorn
Bruno Camila Carlos Carmen Cleo Clara Cyrus Dan Dana Daria David Diego Dina Dmitri Dora Edgar Elena Eli
Elif Emil Emma Enzo Erik Esra Eva Fatima Felix Fiona Flora Frank Freya Gabriel Gina Grace Greta Hana
Hank Hassan Helen Henry Hugo Ian Ibrahim Ida Igor Ines Ingrid Iris Isaac Ivan Jack Jade James Jana Javier
Jin Joan Joel Jonas Judith Julia Kai Kamal Karen Karim Kate Kenji Kira Kofi Lars Laura Leah Leila Leo Liam
Lina Lucas Lucy Luis Luna Magda Malik Marco Maria Marta Maya Mei Mia Milan Mina Mohamed Mona Nadia Naomi
Nadine Nils Nina Noah Nora Olaf Olga Oliver Omar Oscar Otto Owen Pablo Paula Pedro Petra Priya Quinn Rafael
Rachel Ravi Rania Remy Rita Robert Rosa Ruth Sam Samir Sara Sasha Selma Serena Sergei Silvia Simon Sofia
Stefan Stella Sven Tara Tariq Teresa Theo Tim Tina Tom Tomas Uma Ursula Vera Victor Vikram Viola Walter
Wanda Wei Willa Xavier Yara Yasmin Yuki Yusuf Zane Zara Zoe""".split()
CITY = """Lisbon Porto Madrid Seville Paris Lyon Berlin Munich Hamburg Vienna Graz Zurich Geneva Rome Milan
Turin Naples Athens Oslo Bergen Stockholm Malmo Helsinki Tampere Copenhagen Aarhus Dublin Cork London
Leeds Bristol York Glasgow Edinburgh Cardiff Prague Brno Warsaw Krakow Gdansk Budapest Bucharest Sofia
Belgrade Zagreb Split Istanbul Ankara Izmir Cairo Tunis Rabat Lagos Accra Nairobi Kampala Harare Durban
Mumbai Delhi Chennai Pune Kolkata Dhaka Hanoi Bangkok Manila Jakarta Osaka Kyoto Tokyo Nagoya Sapporo
Seoul Busan Beijing Shanghai Taipei Sydney Perth Hobart Auckland Lima Cusco Quito Bogota Caracas Santiago
Rosario Montevideo Havana Toronto Montreal Calgary Boston Denver Austin Dallas Houston Chicago Detroit
Seattle Portland Phoenix Tucson Miami Atlanta Memphis Nashville Oakland Reno""".split()
COLOR = """red blue green yellow orange purple pink brown black white gray teal navy crimson turquoise
lavender maroon beige olive indigo violet gold silver coral cyan magenta ivory scarlet mint amber""".split()
JOB = """nurse teacher baker carpenter plumber electrician lawyer painter dentist surgeon pilot sailor farmer
gardener chef waiter librarian journalist photographer architect programmer accountant cashier driver
firefighter mechanic musician tailor translator geologist biologist chemist welder potter barber banker
engineer designer editor actor dancer cook judge detective florist jeweler locksmith optician
pharmacist physicist receptionist salesman surveyor veterinarian""".split()
FOOD = """pizza sushi ramen tacos curry lasagna paella pancakes dumplings risotto couscous falafel gnocchi
goulash pho burritos waffles noodles soup salad steak burgers pasta oysters cheese chocolate mango
strawberries pierogi ravioli kebab omelette hummus biryani tofu lentils""".split()
FOOD_AVOID = """peanuts shellfish milk eggs gluten soy walnuts almonds sesame strawberries kiwi mustard celery
shrimp wheat honey pollen dust penicillin cats dogs latex cashews lactose tomatoes mushrooms""".split()
HOBBY = """chess climbing knitting pottery sailing surfing fishing painting cycling archery juggling origami
gardening hiking skiing fencing rowing yoga karate astronomy birdwatching calligraphy woodworking
baking photography running swimming tennis golf badminton embroidery beekeeping""".split()
LANGUAGE = """Spanish French German Italian Dutch Danish Swedish Finnish Polish Czech Greek Turkish Arabic
Hebrew Hindi Urdu Bengali Tamil Thai Korean Japanese Mandarin Swahili Zulu Icelandic Welsh Irish
Catalan Portuguese Romanian Hungarian Ukrainian Latin""".split()
INSTRUMENT = """piano guitar violin cello flute drums trumpet harp saxophone clarinet banjo ukulele accordion
oboe tuba viola bass mandolin harmonica trombone""".split()
ANIMAL = """dog cat parrot hamster rabbit turtle goldfish horse pony snake lizard canary ferret gecko goat
donkey pig duck""".split()
PETNAME = """Biscuit Mochi Rex Luna Pepper Ginger Shadow Bella Max Coco Rocky Daisy Milo Ziggy Noodle Pickle
Waffles Oreo Smokey Tiger Felix Simba Nala Peanut Cinnamon Toffee Bandit Scout Rusty Hazel Willow Ollie
Poppy Maple Olive Jasper Cosmo Pixel Buddy Duke Muffin Nugget Snowy Sparky Socks Whiskers""".split()
CAR = """Volvo Toyota Honda Ford Fiat Renault Peugeot Skoda Audi Mazda Subaru Nissan Kia Hyundai Tesla Opel
Seat Citroen Dacia Jeep Lexus Suzuki Mini Saab Porsche""".split()
RELATION = """sister brother mother father mom dad wife husband son daughter aunt uncle cousin nephew niece
grandmother grandfather boss neighbor roommate friend landlord doctor dentist teacher coach colleague
manager assistant partner accountant lawyer""".split()
MONTH = """January February March April May June July August September October November December""".split()
DAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
PLACE = """gate|garage|office|basement|attic|shed|front door|back door|side door|locker room|warehouse|lab|
server room|mail room|meeting room|boat|van|safe|vault|cabin|cottage|beach house|lake house|pool|gym|library|
kitchen|garden|printer|router|alarm|elevator|parking lot|storage unit|tool box|mailbox|laptop|tablet|projector|
coffee machine|studio|cellar|workshop|barn|greenhouse|rooftop|reception""".replace("\n", "").split("|")
THING_ADJ = "red blue green black white old new small big north south east west upper lower main spare second".split()
THING = """gate door garage office shed locker warehouse lab server printer router alarm car van truck bike boat
safe cabinet cabin cottage house pool gym kitchen laptop tablet projector machine studio cellar workshop barn
greenhouse camera drone tent box suitcase bag desk shelf apartment flat elevator mailbox phone scanner
generator pump heater fridge oven""".split()
PROJECT = """Falcon Orion Atlas Nimbus Lotus Saturn Cedar Comet Delta Ember Fjord Glacier Harbor Iris Juniper
Kestrel Lagoon Meteor Nova Onyx Pelican Quartz Raven Sierra Tundra Umbra Vortex Willow Zephyr Aurora Beacon
Cobalt Dune Echo Flint Garnet Heron Indigo Jasmine Koala Lynx Mistral Neptune Opal Phoenix Rubicon Sable
Topaz Utopia Vega Walnut Yonder""".split()
ITEM = """keys wallet passport umbrella glasses charger camera headphones notebook ticket suitcase jacket
scarf watch ring tablet flashlight ladder toolbox drill paint tape scissors stapler invitation contract
receipt medicine backpack guitar helmet gloves bike lock spare key map tent""".split()
CONTAINER = """drawer box closet cupboard shelf desk bag suitcase car basement attic garage kitchen bathroom
bedroom hallway locker safe basket cabinet trunk shed jar envelope folder""".split()
LIST_NAME = """shopping list|grocery list|to-do list|packing list|guest list|wish list|reading list|gift list|
chore list|party list|hardware list|watch list|book list|camping list|playlist|travel list""".replace("\n", "").split("|")
LIST_ITEM = (FOOD + """milk eggs rice bread butter apples bananas coffee tea sugar salt flour onions garlic
carrots candles batteries soap shampoo towels socks boots matches rope string nails screws paint glue
stamps envelopes pens paper sunscreen toothpaste tickets cups plates napkins balloons flowers""".split())
DRINK = """coffee tea espresso cappuccino lemonade cider beer cocoa milk water juice soda rum whisky vodka sake champagne
kombucha lassi horchata mate ginger cola tonic punch""".split()
SUBJECT = """law medicine physics chemistry biology history geography philosophy economics sociology linguistics
architecture engineering astronomy mathematics statistics nursing theology geology botany zoology psychology
archaeology journalism accounting agriculture pharmacy robotics music design""".split()
STATUS = """shipped delayed pending cancelled delivered approved rejected open closed paid overdue blocked
done active paused expired draft queued running failed offline""".split()
EVENT = """dentist appointment|doctor appointment|job interview|flight|train|yoga class|piano lesson|
driving test|board meeting|team meeting|wedding|birthday party|concert|exam|haircut|car inspection|
book club|dinner reservation|parents evening|rehearsal|chess tournament|graduation|eye test|
moving day|housewarming|vet appointment|marathon|court hearing|webinar|swimming lesson""".replace("\n", "").split("|")
COUNTED = """cats|dogs|bikes|cars|siblings|children|cousins|plants|guitars|books|pairs of shoes|brothers|
sisters|houses|laptops|keys|umbrellas|chairs|chickens|cameras|clocks|hats|suitcases|stamps|board games|
watches|aunts|lamps|tents|horses""".replace("\n", "").split("|")
ADJ = """quiet brave silver hidden broken gentle frozen rapid hollow bright lazy golden wild humble bitter
clever distant eager fancy giant happy iron jolly kind lucky misty noble odd purple royal salty tiny
velvet wooden young zesty ancient bold calm dusty""".split()
NOUN = """river falcon engine garden mirror window castle planet forest anchor bridge candle desert eagle
feather guitar hammer island jacket kettle lantern mountain needle ocean pepper quilt rocket saddle
thunder valley whistle yogurt zebra acorn basket cactus dragon elbow fountain glacier harbor""".split()
STREET = """Oak Maple Cedar Elm Pine Birch Willow Mill River Lake Hill Church Park School Station Market Bridge
Garden Spring Forest Meadow Castle Harbor Victoria King Queen Rose Chestnut Walnut Juniper""".split()
SYL_A = "ba be bi bo da de di do fa fe ga ge ka ke ki ko la le li lo ma me mi mo na ne ni no pa pe ra re ri ro sa se si so ta te ti to va ve vi za ze zo sha tha bra dra kra tri flo gla ste".split()
SYL_B = "n r l s m th ck nd rt x k na ra la ro lin mir dan vik ron sen tta lia rius wyn sha del mon rik van bel".split()


def closed(text):
    """Weekdays and numbers below a hundred: too few to keep some from training."""
    return text in DAY or (text.isdigit() and len(text) < 3)


def side(text, held=None):
    """True for the tenth of all texts that only validation uses; closed classes are on the side asked for."""
    if held is not None and closed(text):
        return held
    return zlib.crc32(text.lower().encode()) % 10 == 0


def syllables(r):
    return ("".join(r.choice(SYL_A) for _ in range(r.choice((1, 2, 2)))) + r.choice(SYL_B)).capitalize()


def digits(r, n):
    return str(r.randint(1, 9)) + "".join(str(r.randint(0, 9)) for _ in range(n - 1))


LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def code(r):
    k = r.randrange(7)
    up = lambda n: "".join(r.choice(LETTERS) for _ in range(n))
    if k < 3:
        return digits(r, r.choice((3, 4, 4, 4, 5, 6)))
    if k == 3:
        return up(2) + "-" + digits(r, r.choice((3, 4, 5)))
    if k == 4:
        return up(1) + digits(r, 1) + up(1) + digits(r, 1) + (up(1) if r.random() < .5 else "")
    if k == 5:
        return digits(r, 3) + "-" + digits(r, 3)
    return up(r.choice((3, 4))) + digits(r, 2)


def date(r):
    m = r.choice(MONTH)
    d = r.randint(1, 28)
    return r.choice((f"{d} {m}", f"{m} {d}", f"{m} {d}", f"{d} {m} {r.randint(1950, 2030)}"))


def clock(r):
    return r.choice((f"{r.randint(1, 12)} {r.choice(('am', 'pm'))}",
                     f"{r.randint(1, 12)}:{r.randint(0, 11) * 5:02d} {r.choice(('am', 'pm'))}",
                     f"{r.randint(0, 23)}:{r.randint(0, 11) * 5:02d}"))


def password(r):
    a, n = r.choice(ADJ), r.choice(NOUN)
    return r.choice((f"{a}{n}{r.randint(1, 99)}", f"{a}-{n}", f"{a}_{n}_{r.randint(10, 99)}",
                     f"{n}{digits(r, 4)}", f"{a.capitalize()}{n.capitalize()}", f"{a} {n}"))


def phone(r):
    return r.choice((f"{digits(r, 3)}-{digits(r, 4)}", f"{digits(r, 3)}-{digits(r, 3)}-{digits(r, 4)}",
                     f"+{r.randint(1, 99)} {digits(r, 3)} {digits(r, 4)}", f"0{digits(r, 3)} {digits(r, 5)}"))


def first(r):
    return r.choice(FIRST) if r.random() < .6 else syllables(r)


def full_name(r):
    return f"{first(r)} {syllables(r)}"


def phrase(r):
    return r.choice((f"the {r.choice(ADJ)} {r.choice(NOUN)}", f"{r.choice(ADJ)} {r.choice(NOUN)}",
                     f"{r.choice(ADJ)} {r.choice(NOUN)}s", f"The {r.choice(ADJ).capitalize()} {r.choice(NOUN).capitalize()}"))


def money(r):
    return r.choice((f"${digits(r, r.choice((2, 3, 4)))}", f"{digits(r, r.choice((2, 3)))} euros",
                     f"${r.randint(1, 99)}.{r.randint(0, 99):02d}", f"{digits(r, 3)} dollars"))


def email(r):
    return f"{first(r).lower()}{r.choice(('.', '_', ''))}{r.choice(NOUN)}@{r.choice(ADJ)}{r.choice(('mail.com', '.org', '.net', 'box.com'))}"


def word(r):
    return r.choice(r.bank) if getattr(r, "bank", None) else r.choice(NOUN)


def title(r):
    return r.choice((f"The {word(r).capitalize()} {r.choice(NOUN).capitalize()}", f"{word(r).capitalize()} and {word(r).capitalize()}",
                     f"{r.choice(ADJ).capitalize()} {word(r).capitalize()}"))


def pick(items):
    return lambda r: r.choice(items)


def open_pick(items):
    """Mostly a listed word, sometimes any other word: the answer must come from what was said."""
    return lambda r: r.choice(items) if r.random() < .8 else word(r)


VALUES = {
    "first": first, "full_name": full_name, "city": lambda r: r.choice(CITY) if r.random() < .7 else syllables(r) + r.choice(("", "ton", "ville", "burg", " Bay")),
    "color": lambda r: r.choice(COLOR) if r.random() < .8 else f"{r.choice(('dark', 'light', 'pale', 'bright'))} {r.choice(COLOR)}",
    "job": open_pick(JOB), "food": lambda r: r.choice(FOOD) if r.random() < .75 else f"{word(r)} {r.choice(FOOD)}",
    "avoid": open_pick(FOOD_AVOID), "hobby": open_pick(HOBBY), "language": open_pick(LANGUAGE), "subject": open_pick(SUBJECT), "instrument": open_pick(INSTRUMENT),
    "drink": lambda r: r.choice(DRINK) if r.random() < .6 else f"{word(r)} {r.choice(DRINK)}",
    "pet": lambda r: r.choice(PETNAME) if r.random() < .5 else first(r), "car": lambda r: r.choice(CAR) + (f" {digits(r, 3)}" if r.random() < .4 else ""), "code": code, "date": date,
    "clock": clock, "password": password, "phone": phone, "phrase": phrase, "money": money, "email": email,
    "word": word, "title": title, "number": lambda r: str(r.randint(2, 99)) if r.random() < .7 else digits(r, r.choice((3, 4))),
    "small": lambda r: str(r.randint(2, 40)), "day": pick(DAY), "animal": open_pick(ANIMAL),
    "street": lambda r: f"{r.randint(1, 199)} {r.choice(STREET)} {r.choice(('Street', 'Road', 'Lane', 'Avenue'))}",
    "size": lambda r: str(r.randint(34, 48)) if r.random() < .7 else r.choice(("small", "medium", "large", "XL")),
    "status": open_pick(STATUS), "place": lambda r: f"the {r.choice(COLOR + THING_ADJ)} {r.choice(CONTAINER)}" if r.random() < .6 else f"the {r.choice(CONTAINER)}",
    "when": lambda r: r.choice((date(r), f"{r.choice(DAY)} at {clock(r)}", f"{date(r)} at {clock(r)}", r.choice(DAY))),
    "team": lambda r: f"{r.choice(CITY)} {r.choice(NOUN).capitalize()}s", "version": lambda r: f"{r.randint(0, 9)}.{r.randint(0, 20)}" + (f".{r.randint(0, 9)}" if r.random() < .5 else ""),
    "weight": lambda r: f"{r.randint(2, 300)} {r.choice(('kg', 'grams', 'pounds'))}", "ip": lambda r: ".".join(str(r.randint(1, 254)) for _ in range(4)),
}


def letters(r):
    """What nobody would guess: letters, some of them capital, some digits."""
    return "".join(r.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" if r.random() < .4 else "abcdefghijklmnopqrstuvwxyz")
                   for _ in range(r.randint(2, 10)))


def foreign(r):
    """A name from anywhere."""
    a = "".join(r.choice(("b", "c", "ch", "d", "dz", "f", "g", "gh", "h", "j", "k", "kh", "l", "m", "n", "ng", "p", "q", "r", "s", "sz", "t", "th", "ts", "v", "w", "x", "y", "z", "zh", ""))
                + r.choice(("a", "e", "i", "o", "u", "aa", "ai", "ei", "ia", "io", "oo", "ou", "y", "ee", "ue")) + r.choice(("", "", "n", "r", "s", "l", "m", "k")) for _ in range(r.randint(1, 3)))
    return a.capitalize()


def mixed(r):
    """Several things in a row: long values."""
    parts = [r.choice((word, syllables, foreign, code, lambda r: str(r.randint(1, 99)), lambda r: word(r).capitalize()))(r) for _ in range(r.randint(2, 5))]
    return r.choice((" ", " ", " ", "-", " and ", ", ", "/")).join(parts)


def container(r):
    return r.choice(CONTAINER) if r.random() < .7 else word(r)


def some_words(r, n):
    return " ".join(word(r) for _ in range(n))


ANYTHING = [word, word, lambda r: word(r).capitalize(), lambda r: some_words(r, 2), lambda r: some_words(r, 3), syllables, syllables, full_name,
            lambda r: digits(r, r.randint(1, 6)), lambda r: digits(r, r.randint(1, 4)), code, code, password, phrase, title, date, clock, money,
            letters, letters, foreign, foreign, lambda r: f"{foreign(r)} {foreign(r)}", mixed, mixed, lambda r: f"{first(r)} {foreign(r)}", word, lambda r: word(r) + "s",
            phone, email, first, VALUES["street"], lambda r: f"{word(r)} {r.randint(1, 99)}", lambda r: f"the {word(r)}"]


def value(kind, r, held):
    """A value of one kind from the side `held` names."""
    make = VALUES[kind]
    if not held and r.random() < .35:  # any value may belong to anything: what counts is what was said
        make = r.choice(ANYTHING)
    for _ in range(200):
        v = make(r)
        if side(v, held) == held:
            return v
    return make(r)
