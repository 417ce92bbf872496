"""The words that some tasks ask about, chosen by hand. Their answers come from packages: see `tasks`."""

from __future__ import annotations

# Singular nouns: regular, -y, -ch/-s/-x, -o, -f, and irregular. All have one usual plural.
NOUNS = """
apple book car dog door egg friend game garden hand house idea job king letter machine minute mountain name
number orange pencil picture place plant question river road room school song star street student table teacher
tree window word year bridge bottle candle carpet castle circle cloud
baby berry butterfly century city cherry country diary dictionary factory family fly lady library memory party
penny pony puppy story
boy day key monkey toy valley journey donkey
bench branch church coach match peach sandwich speech watch witch brush bush dish wish bus class dress glass kiss
boss box fox tax
hero potato tomato echo piano photo radio video kangaroo
leaf knife wolf life wife half shelf loaf calf chief roof cliff belief
child man woman foot tooth goose mouse ox person crisis analysis oasis
""".split()

# Verbs whose past tense has one usual form, different from the verb itself.
VERBS = """
add answer arrive ask bake believe call carry change clean climb close compare cook count cry dance decide deliver
destroy discover enjoy explain fill finish follow guess hate help hope hurry imagine improve invent invite jump laugh
listen live look love marry measure move need notice offer open order paint plan play prefer prepare promise push
reach receive refuse remember repeat rescue rub save shout smile start stop study suggest talk taste thank
touch trust try use visit wait walk want warn wash watch wonder work worry
become begin bite blow break bring build buy catch choose come dig do draw drink drive eat fall feed feel fight find
flee fly forget forgive freeze get give go grow hear hide hold keep know lead leave lend lose make mean meet pay ride
ring rise run say see sell send shake shoot sing sit sleep speak spend stand steal stick strike swim swing take
teach tell think throw understand wear win write
""".split()

# Adjectives that take -est, or have a form of their own.
ADJECTIVES = """
bad big bold brave bright broad busy calm cheap clean clear clever cold cool cruel dark deep dirty dry dull early easy
fair fast fine firm flat fresh friendly full funny good great green happy hard heavy high hot kind large late
lazy light long loud low lucky mild narrow near neat new nice noisy old pale plain poor pretty proud pure quick quiet
rare rich ripe rough sad safe sharp short shy simple slim slow small smart smooth soft sour steep strange strong
sunny sweet tall thick thin tidy tight tiny tough warm weak wet wide wild wise young
""".split()

# Words with a clear feeling, fit for a classroom, one of each family (so "happy" but not "happiness").
# Whether each is positive or negative is the lexicon's verdict, not ours.
FEELING_WORDS = """
admire adorable affection amazing appreciate award awesome beautiful beloved best blessing bliss bonus brave bright
brilliant care celebrate champion charming cheerful clever comfortable compassionate confident courage creative cute
delicious delight divine eager easy elegant encourage energetic enjoy enthusiastic excellent exciting fabulous
faithful fantastic fascinating favorite festive fortunate freedom friendly fun funny generous gentle gift glad glory
good gorgeous grace grateful great handsome happy hero honest honor hope hug ideal impressive inspire intelligent
interesting jolly joy kind laugh lively love loyal lucky magnificent marvelous masterpiece merry miracle nice
outstanding paradise passionate peaceful perfect playful pleasant popular praise precious pretty prize proud radiant
relaxed relief remarkable respect reward rich romantic safe satisfied sincere smile special splendid strong success
sunshine superb support sweet sympathy talent terrific thankful thrilled triumph trust vibrant welcome win wise
wonderful worthy
abandon accident aching agony angry annoy arrogant ashamed awful bad betray bitter broken burden careless catastrophe
chaos cheat complain coward crisis cruel cry damage danger defeat depressed destroy dirty disappointed disaster
discourage disgrace disgust dishonest dismal distress disturb doom doubt dread dull embarrassed enemy error evil
failure fake fear fraud frightened frustrated furious grief grim guilty harm harsh hate helpless hopeless horrible
hostile humiliate hurt insult irritate jealous lazy liar lonely menace mess miserable nasty neglect outrage painful
panic pathetic pessimistic poison problem punish rage regret reject revenge ridiculous rotten rude ruin sad scared
selfish shame shock sick sorrow steal stress stubborn suffer terrible thief threat tired tragedy trouble unfair
unhappy unpleasant upset useless vicious weak weep wicked worst worthless wreck wrong
""".split()
