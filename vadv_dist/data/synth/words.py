"""The vocabulary of synthetic clips: opinion words by strength, modifiers, and neutral phrases.

The three sets have no word in common, so that a reader can distinguish them (a test checks it).
"""

# Opinion words by level in half points: 6 is 3.0, the strongest praise; -6 is -3.0.
OPINION_WORDS: dict[int, tuple[str, ...]] = {
    half: tuple(words.split())
    for half, words in {
        6: "superb magnificent phenomenal extraordinary flawless breathtaking sublime perfect masterful "
        "outstanding stupendous unforgettable spectacular transcendent glorious exquisite astonishing "
        "peerless triumphant miraculous",
        5: "amazing brilliant fantastic incredible wonderful stunning marvelous exceptional terrific splendid "
        "dazzling sensational awesome fabulous remarkable unbelievable riveting electrifying gorgeous "
        "astounding",
        4: "great excellent lovely beautiful delightful hilarious thrilling gripping captivating impressive "
        "inspired superior memorable mesmerizing enchanting exhilarating powerful touching heartwarming "
        "spellbinding",
        3: "enjoyable entertaining funny exciting clever engaging compelling witty strong polished satisfying "
        "rewarding absorbing uplifting stylish charming vivid heartfelt inventive lively",
        2: "good nice pleasant fun cool likable amusing solid interesting sweet warm smart refreshing "
        "appealing catchy tasteful worthwhile cute fresh neat",
        1: "decent fine okay watchable passable adequate acceptable fair harmless tolerable agreeable "
        "reasonable respectable competent serviceable alright bearable sufficient satisfactory presentable",
        0: "average neutral ordinary standard typical middling unremarkable conventional regular plain normal "
        "usual routine common balanced moderate medium indifferent everyday customary",
        -1: "uneven forgettable predictable flat bland slow thin dated patchy lukewarm tame underwhelming "
        "generic formulaic derivative minor shallow overlong stale meh",
        -2: "weak dull bad disappointing clumsy messy boring tedious silly lame confusing sloppy corny cheesy "
        "lazy awkward muddled poor tired hollow",
        -3: "annoying irritating unfunny tiresome lifeless dreary frustrating incoherent mediocre amateurish "
        "wooden stupid pointless cringy drab ridiculous obnoxious unconvincing monotonous grating",
        -4: "terrible lousy painful dreadful crappy insulting idiotic rotten nasty laughable miserable moronic "
        "shoddy inept insufferable unpleasant offensive joyless unbearable dire",
        -5: "horrible pathetic awful atrocious ghastly wretched hideous appalling hateful revolting brainless "
        "worthless disastrous soulless trashy excruciating deplorable dismal shameful disgraceful",
        -6: "abysmal horrendous unwatchable disgusting abominable horrid execrable vile repulsive catastrophic "
        "loathsome despicable detestable irredeemable putrid godawful nauseating odious repugnant horrific",
    }.items()
}

# Directly before an opinion word, these move it half a point away from zero, half a point towards zero, or flip its
# sign.
INTENSIFIERS = ("very", "really", "so", "truly", "extremely", "incredibly")
DOWNTONERS = ("fairly", "somewhat", "slightly", "rather", "mildly", "quite")
NEGATIONS = ("not", "hardly", "never", "scarcely")

# Phrases that may precede an opinion word and its modifier.
OPENINGS = (
    "it was",
    "this was",
    "it felt",
    "that was",
    "it looked",
    "the movie was",
    "the film was",
    "i found it",
    "the acting was",
    "the ending was",
    "the story felt",
    "i thought it was",
    "the whole thing was",
    "the second half was",
    "the main actor was",
    "to me the movie was",
    "most of the scenes were",
    "i have to say it was",
)

ASIDES = (
    "um", "uh", "well", "anyway", "basically", "actually", "honestly", "yeah", "now", "also", "and", "but", "like",
    "you know", "i mean", "i guess", "to me", "this time", "and uh", "but um", "for me", "by now", "in there",
    "in the movie", "at the theater", "with my friends", "in this one", "and then uh", "as you know",
    "i saw it yesterday", "with the main character", "it came out recently", "in the first half", "i read the book",
    "it is about a family", "they live in the city", "i watched it last night", "we went to see it",
    "it takes place in the future", "i watched it with my sister", "there are two of them now",
    "it is the second one they made", "there is a scene in the kitchen",
    "i went to see it on the weekend with family",
)  # fmt: skip

# Plot: each of these with every action and every place.
PEOPLE = (
    "he", "she", "they all", "the brother", "the mother", "her husband", "the detective", "the two kids",
    "the main character", "this guy named jack", "the captain of the ship",
)  # fmt: skip
DEEDS = (
    "went back", "moved out", "looked for her", "talked about work", "met the others", "found a letter",
    "had to go", "drove", "hid the money", "waited",
)  # fmt: skip
PLACES = (
    "", "there", "at home", "in town", "in the house", "at the school", "to the city", "in new york",
    "near the old farm", "on the other side", "in the middle of the night",
)  # fmt: skip
