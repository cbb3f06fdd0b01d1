"""Things people say with a verb. Each family: kind of value, how it is told and asked about oneself ("I",
"you" in the answer) and about somebody else ({s}), and the wording of the answer and of not knowing.
"""
from wordings import lines


class Verb:
    def __init__(self, kind, answer, answer_other, unknown, unknown_other, tell, tell_other, ask, ask_other):
        self.kind, self.answer, self.answer_other = kind, answer, answer_other
        self.unknown, self.unknown_other = unknown, unknown_other
        self.tell, self.tell_other = lines(tell), lines(tell_other)
        self.ask, self.ask_other = lines(ask), lines(ask_other)


VERBS = {
    "live": Verb("city", "You live in {v}.", "{S} lives in {v}.", "You have not told me where you live.", "You have not told me where {a} lives.", """
        I live in {v}
        I live in {v}
        my home is in {v}
        I am living in {v}
        I reside in {v}
        home for me is {v}
        I moved to {v}
        I live in {v} these days
        I'm based in {v}
        I settled in {v}
        {v} is where I live
        I have my home in {v}
        I make my home in {v}
        I have a flat in {v}
        I rent a place in {v}
        you would find my house in {v}
        we moved to {v}, so that's my home
        I've been living in {v} for a while
        """, """
        {s} lives in {v}
        {s} lives in {v}
        {s} is living in {v}
        {s}'s home is in {v}
        {s} resides in {v}
        {v} is where {s} lives
        {s} moved to {v}
        {s} is based in {v}
        {s} lives in {v} these days
        {s} settled in {v}
        home for {s} is {v}
        {s} has a flat in {v}
        {s} makes a home in {v}
        {s} rents a place in {v}
        """, """
        where do I live?
        where do I live?
        in which city do I live?
        which city do I live in?
        where is my home?
        what city am I living in?
        do you know where I live?
        where did I say I live?
        tell me where I live
        do you remember where I live?
        what place do I call home?
        where's my home?
        where do I have my home?
        in what city is my home?
        which city is my home in?
        where am I living?
        """, """
        where does {s} live?
        where does {s} live?
        in which city does {s} live?
        which city does {s} live in?
        where is {s}'s home?
        what city is {s} living in?
        do you know where {s} lives?
        tell me where {s} lives
        where did I say {s} lives?
        where is {s} living?
        what place does {s} call home?
        do you remember where {s} lives?
        """),
    "work": Verb("job", "You work as a {v}.", "{S} works as a {v}.", "You have not told me what you do for a living.", "You have not told me what {a} does for a living.", """
        I work as a {v}
        I am a {v}
        I'm a {v} by profession
        I earn my living as a {v}
        my profession is {v}
        I make a living as a {v}
        I have a job as a {v}
        by trade I am a {v}
        I was hired as a {v}
        I am employed as a {v}
        professionally I am a {v}
        I found work as a {v}
        {v} is my profession
        my work is that of a {v}
        I spend my working days as a {v}
        """, """
        {s} works as a {v}
        {s} is a {v}
        {s} is a {v} by profession
        {s} has a job as a {v}
        {s} earns a living as a {v}
        {s} makes a living as a {v}
        {s} is employed as a {v}
        by trade {s} is a {v}
        {s} was hired as a {v}
        {v} is {s}'s profession
        {s} found work as a {v}
        the profession of {s} is {v}
        """, """
        what do I do for a living?
        what is my profession?
        what do I do for work?
        what do I work as?
        what is my line of work?
        how do I earn my living?
        do you know what I do for a living?
        what's my profession?
        what am I by profession?
        which profession do I have?
        what work do I do?
        as what do I work?
        tell me what I do for a living
        """, """
        what does {s} do for a living?
        what is {s}'s profession?
        what does {s} do for work?
        what does {s} work as?
        what is {s}'s line of work?
        how does {s} earn a living?
        do you know what {s} does for a living?
        what is {s} by profession?
        which profession does {s} have?
        what work does {s} do?
        tell me what {s} does for a living
        as what does {s} work?
        """),
    "allergy": Verb("avoid", "You are allergic to {v}.", "{S} is allergic to {v}.", "You have not told me what you are allergic to.", "You have not told me what {a} is allergic to.", """
        I am allergic to {v}
        I'm allergic to {v}
        I have an allergy to {v}
        I can't have {v}, I'm allergic
        {v} gives me an allergic reaction
        my allergy is {v}
        careful, I am allergic to {v}
        I am allergic to {v}, so watch out
        I must avoid {v} because of an allergy
        doctors say I am allergic to {v}
        I suffer from an allergy to {v}
        what I am allergic to is {v}
        {v} is what I'm allergic to
        I react badly to {v}, an allergy
        """, """
        {s} is allergic to {v}
        {s} is allergic to {v}
        {s} has an allergy to {v}
        {s} can't have {v}, it is an allergy
        {v} gives {s} an allergic reaction
        {s} suffers from an allergy to {v}
        careful, {s} is allergic to {v}
        {s} must avoid {v} because of an allergy
        what {s} is allergic to is {v}
        {s}'s allergy is {v}
        doctors say {s} is allergic to {v}
        {s} reacts to {v}, it's an allergy
        """, """
        what am I allergic to?
        what am I allergic to?
        do I have an allergy?
        which allergy do I have?
        what gives me an allergic reaction?
        what do I have an allergy to?
        what is my allergy?
        do you know what I'm allergic to?
        to what am I allergic?
        what should I avoid because of my allergy?
        tell me what I am allergic to
        any allergy of mine?
        """, """
        what is {s} allergic to?
        what is {s} allergic to?
        does {s} have an allergy?
        which allergy does {s} have?
        what gives {s} an allergic reaction?
        to what is {s} allergic?
        do you know what {s} is allergic to?
        what is {s}'s allergy?
        what should {s} avoid because of an allergy?
        tell me what {s} is allergic to
        what does {s} have an allergy to?
        what has {s} an allergy to?
        """),
    "play": Verb("instrument", "You play the {v}.", "{S} plays the {v}.", "You have not told me which instrument you play.", "You have not told me which instrument {a} plays.", """
        I play the {v}
        I play the {v}
        I'm learning the {v}
        the {v} is my instrument
        I have played the {v} for years
        I practise the {v} every day
        I like playing the {v}
        my instrument is the {v}
        I am quite good at the {v}
        I took up the {v}
        in the orchestra I play the {v}
        I make music on the {v}
        """, """
        {s} plays the {v}
        {s} plays the {v}
        {s} is learning the {v}
        the {v} is {s}'s instrument
        {s} has played the {v} for years
        {s} practises the {v} every day
        {s}'s instrument is the {v}
        {s} took up the {v}
        {s} likes playing the {v}
        {s} is quite good at the {v}
        in the orchestra {s} plays the {v}
        {s} makes music on the {v}
        """, """
        which instrument do I play?
        what instrument do I play?
        what do I play?
        do you know which instrument I play?
        what's the instrument I play?
        what instrument is mine?
        which instrument did I say I play?
        on what do I make music?
        which instrument am I learning?
        what is my instrument?
        tell me which instrument I play
        what instrument did I take up?
        """, """
        which instrument does {s} play?
        what instrument does {s} play?
        what does {s} play?
        do you know which instrument {s} plays?
        what's the instrument {s} plays?
        what is {s}'s instrument?
        which instrument did I say {s} plays?
        which instrument is {s} learning?
        tell me which instrument {s} plays
        on what does {s} make music?
        what instrument did {s} take up?
        what instrument is {s}'s?
        """),
    "drive": Verb("car", "You drive a {v}.", "{S} drives a {v}.", "You have not told me what you drive.", "You have not told me what {a} drives.", """
        I drive a {v}
        I drive a {v}
        I own a {v}
        my car is a {v}
        I get around in a {v}
        there is a {v} in my garage
        I bought a {v}
        the car I have is a {v}
        I have a {v} to drive
        I go to work in my {v}
        my vehicle is a {v}
        I picked up my new car, a {v}
        """, """
        {s} drives a {v}
        {s} drives a {v}
        {s} owns a {v}
        {s}'s car is a {v}
        {s} gets around in a {v}
        the car {s} has is a {v}
        {s} bought a {v}
        {s} has a {v} to drive
        {s} goes to work in a {v}
        {s}'s vehicle is a {v}
        there is a {v} in {s}'s garage
        {s} picked up a new car, a {v}
        """, """
        what do I drive?
        what car do I drive?
        which car do I have?
        what kind of car do I drive?
        which make of car is mine?
        what car is mine?
        do you know what I drive?
        what is my car?
        what vehicle do I own?
        which car do I own?
        tell me what I drive
        what do I get around in?
        """, """
        what does {s} drive?
        what car does {s} drive?
        which car does {s} have?
        what kind of car does {s} drive?
        which make of car does {s} own?
        what is {s}'s car?
        do you know what {s} drives?
        what vehicle does {s} own?
        which car does {s} own?
        tell me what {s} drives
        which car is {s}'s?
        what does {s} get around in?
        """),
    "speak": Verb("language", "You speak {v}.", "{S} speaks {v}.", "You have not told me which language you speak.", "You have not told me which language {a} speaks.", """
        I speak {v}
        I speak {v}
        I am learning {v}
        {v} is a language I speak
        I can talk in {v}
        {v} is my language
        I speak fluent {v}
        my language is {v}
        at home we speak {v}
        I can hold a conversation in {v}
        I understand {v} well and speak it
        I was taught {v}
        """, """
        {s} speaks {v}
        {s} speaks {v}
        {s} is learning {v}
        {v} is a language {s} speaks
        {s} can talk in {v}
        {s}'s language is {v}
        {s} speaks fluent {v}
        {s} was taught {v}
        {s} can hold a conversation in {v}
        at home {s} speaks {v}
        the language of {s} is {v}
        {v} is {s}'s language
        """, """
        which language do I speak?
        what language do I speak?
        what do I speak?
        do you know which language I speak?
        in what language can I talk?
        what is my language?
        what language am I learning?
        which language is mine?
        tell me which language I speak
        which language did I say I speak?
        in which language am I fluent?
        what language can I speak?
        """, """
        which language does {s} speak?
        what language does {s} speak?
        what does {s} speak?
        do you know which language {s} speaks?
        in what language can {s} talk?
        what is {s}'s language?
        what language is {s} learning?
        tell me which language {s} speaks
        which language did I say {s} speaks?
        in which language is {s} fluent?
        which language is {s}'s?
        what language can {s} speak?
        """),
    "born": Verb("city", "You are from {v}.", "{S} is from {v}.", "You have not told me where you are from.", "You have not told me where {a} is from.", """
        I was born in {v}
        I come from {v}
        I grew up in {v}
        I am originally from {v}
        I'm from {v}
        my family is from {v}
        {v} is where I'm from
        I was raised in {v}
        my roots are in {v}
        my place of birth is {v}
        I spent my childhood in {v}
        I hail from {v}
        """, """
        {s} was born in {v}
        {s} comes from {v}
        {s} grew up in {v}
        {s} is originally from {v}
        {s} is from {v}
        {s} hails from {v}
        {v} is where {s} is from
        {s} was raised in {v}
        {s}'s roots are in {v}
        {s}'s place of birth is {v}
        {s} spent a childhood in {v}
        {s} has roots in {v}
        """, """
        where was I born?
        where do I come from?
        where am I from?
        where did I grow up?
        what is my place of origin?
        where was I raised?
        which city am I from?
        what is my place of birth?
        where are my roots?
        in which city was I born?
        tell me where I am from
        where do I hail from?
        """, """
        where was {s} born?
        where does {s} come from?
        where is {s} from?
        where did {s} grow up?
        what is {s}'s place of origin?
        where was {s} raised?
        which city is {s} from?
        what is {s}'s place of birth?
        where are {s}'s roots?
        in which city was {s} born?
        tell me where {s} is from
        where does {s} hail from?
        """),
    "like": Verb("food", "You like {v}.", "{S} likes {v}.", "You have not told me what you like to eat.", "You have not told me what {a} likes to eat.", """
        I love {v}
        I really like {v}
        what I like to eat most is {v}
        I could eat {v} every day
        nothing tastes better to me than {v}
        I can't get enough of {v}
        I like eating {v}
        I am always hungry for {v}
        for dinner I like {v} best
        my idea of a good meal is {v}
        I adore {v}
        I never say no to {v}
        """, """
        {s} loves {v}
        {s} really likes {v}
        what {s} likes to eat most is {v}
        {s} could eat {v} every day
        nothing tastes better to {s} than {v}
        {s} never says no to {v}
        {s} likes eating {v}
        {s} can't get enough of {v}
        for dinner {s} likes {v} best
        {s} adores {v}
        {s} is always hungry for {v}
        {s}'s idea of a good meal is {v}
        """, """
        what do I like to eat?
        which food do I love?
        what do I love to eat?
        what food do I like?
        what could I eat every day?
        which food do I like best?
        what do I like eating?
        what can't I get enough of?
        what is the food I love?
        what do I enjoy eating?
        tell me what I like to eat
        which dish do I like?
        """, """
        what does {s} like to eat?
        which food does {s} love?
        what does {s} love to eat?
        what food does {s} like?
        what could {s} eat every day?
        which food does {s} like best?
        what does {s} like eating?
        what is the food {s} loves?
        what does {s} enjoy eating?
        tell me what {s} likes to eat
        which dish does {s} like?
        what can't {s} get enough of?
        """),
    "do": Verb("hobby", "You enjoy {v}.", "{S} enjoys {v}.", "You have not told me what you enjoy.", "You have not told me what {a} enjoys.", """
        I enjoy {v}
        in my free time I do {v}
        my pastime is {v}
        I spend weekends on {v}
        I'm into {v}
        on weekends you find me at {v}
        what I enjoy is {v}
        I relax with {v}
        I am fond of {v}
        {v} is how I spend my free time
        I am keen on {v}
        after work I like to do {v}
        """, """
        {s} enjoys {v}
        in the free time {s} does {v}
        {s}'s pastime is {v}
        {s} spends weekends on {v}
        {s} is fond of {v}
        {s} is keen on {v}
        {s} is into {v}
        {s} relaxes with {v}
        what {s} enjoys is {v}
        {v} is how {s} spends free time
        on weekends you find {s} at {v}
        after work {s} likes to do {v}
        """, """
        what do I do in my free time?
        what do I enjoy?
        what is my pastime?
        how do I spend my weekends?
        what am I into?
        how do I relax?
        what am I fond of?
        what do I do on weekends?
        how do I spend my free time?
        what do I like doing after work?
        tell me what I enjoy
        what am I keen on?
        """, """
        what does {s} do in the free time?
        what does {s} enjoy?
        what is {s}'s pastime?
        how does {s} spend weekends?
        what is {s} into?
        how does {s} relax?
        what is {s} fond of?
        what does {s} do on weekends?
        how does {s} spend free time?
        what is {s} keen on?
        tell me what {s} enjoys
        what does {s} like doing after work?
        """),
    "study": Verb("subject", "You study {v}.", "{S} studies {v}.", "You have not told me what you study.", "You have not told me what {a} studies.", """
        I study {v}
        I study {v}
        I am a student of {v}
        I am studying {v}
        I took up studies in {v}
        at university I do {v}
        my field is {v}
        my subject is {v}
        I am doing a degree in {v}
        my degree is in {v}
        I enrolled in {v}
        I major in {v}
        """, """
        {s} studies {v}
        {s} studies {v}
        {s} is a student of {v}
        {s} is studying {v}
        at university {s} does {v}
        {s} majors in {v}
        {s}'s field is {v}
        {s}'s subject is {v}
        {s} is doing a degree in {v}
        {s}'s degree is in {v}
        {s} enrolled in {v}
        {s} took up studies in {v}
        """, """
        what do I study?
        what am I studying?
        which subject do I study?
        what is my field?
        what is my subject?
        what do I major in?
        what is my degree in?
        which subject did I enrol in?
        what do I do at university?
        do you know what I study?
        tell me what I study
        in what am I doing a degree?
        """, """
        what does {s} study?
        what is {s} studying?
        which subject does {s} study?
        what is {s}'s field?
        what is {s}'s subject?
        what does {s} major in?
        what is {s}'s degree in?
        which subject did {s} enrol in?
        what does {s} do at university?
        do you know what {s} studies?
        tell me what {s} studies
        in what is {s} doing a degree?
        """),
    "support": Verb("team", "You support {v}.", "{S} supports {v}.", "You have not told me which team you support.", "You have not told me which team {a} supports.", """
        I support {v}
        I cheer for {v}
        I am a fan of {v}
        the team I support is {v}
        I never miss a game of {v}
        I root for {v}
        my team is {v}
        I follow {v}
        I have a season ticket for {v}
        I want {v} to win the league
        I watch every match of {v}
        {v} is the team for me
        """, """
        {s} supports {v}
        {s} cheers for {v}
        {s} is a fan of {v}
        the team {s} supports is {v}
        {s} never misses a game of {v}
        {s} roots for {v}
        {s} follows {v}
        {s} has a season ticket for {v}
        {s} wants {v} to win the league
        {s} watches every match of {v}
        {v} is the team that {s} supports
        {s} goes to the games of {v}
        """, """
        which team do I support?
        what team do I support?
        who do I cheer for?
        which team am I a fan of?
        what is the team I support?
        who do I root for?
        which team do I follow?
        whose games do I never miss?
        what team am I for?
        do you know which team I support?
        tell me which team I support
        which team has my support?
        """, """
        which team does {s} support?
        what team does {s} support?
        who does {s} cheer for?
        which team is {s} a fan of?
        what is the team {s} supports?
        who does {s} root for?
        which team does {s} follow?
        whose games does {s} never miss?
        do you know which team {s} supports?
        what team is {s} for?
        tell me which team {s} supports
        which team has {s}'s support?
        """),
    "married": Verb("full_name", "You are married to {v}.", "{S} is married to {v}.", "You have not told me who you are married to.", "You have not told me who {a} is married to.", """
        I am married to {v}
        I'm married to {v}
        I got married to {v}
        {v} and I are married
        the one I married is {v}
        I tied the knot with {v}
        I married {v}
        my better half is {v}
        my spouse is {v}
        {v} is my spouse
        the person I am married to is {v}
        I share my life with {v}, we are married
        """, """
        {s} is married to {v}
        {s} got married to {v}
        {s} and {v} are married
        the one {s} married is {v}
        {s} married {v}
        {s} tied the knot with {v}
        {s}'s spouse is {v}
        {v} is {s}'s spouse
        the person {s} is married to is {v}
        {s}'s better half is {v}
        {s} has been married to {v} for years
        {v} and {s} had their wedding, they are married
        """, """
        who am I married to?
        to whom am I married?
        who did I marry?
        who is my spouse?
        what is my spouse's name?
        who is my better half?
        do you know who I am married to?
        whom did I marry?
        tell me who I am married to
        which person did I marry?
        who is the one I married?
        with whom did I tie the knot?
        """, """
        who is {s} married to?
        to whom is {s} married?
        who did {s} marry?
        who is {s}'s spouse?
        what is the name of {s}'s spouse?
        who is {s}'s better half?
        do you know who {s} is married to?
        whom did {s} marry?
        tell me who {s} is married to
        which person did {s} marry?
        who is the one {s} married?
        with whom did {s} tie the knot?
        """),
}
