"""The ways to tell, correct, forget and ask: frames around a clause or a question, and the cores that
they frame. {p} is the thing as the user calls it, {v} its value, {o} the old value, {s} somebody, {n} a
plural; {t} is a told clause, {q} a question.

Every sixth item of each list is kept for validation (slots.part): held-out wordings are a held-out core,
bare or in a held-out frame, so neither was ever seen in training.
"""


def lines(text):
    return [x.strip() for x in text.strip().split("\n") if x.strip()]


TELL_FRAMES = lines("""
    remember that {t}
    please remember that {t}
    by the way, {t}
    just so you know, {t}
    note that {t}
    please note that {t}
    remember: {t}
    for the record, {t}
    {t}, just so you know
    I want you to know that {t}
    keep in mind that {t}
    FYI, {t}
    I should mention that {t}
    oh, and {t}
    can you remember that {t}?
    save this: {t}
    also, {t}
    it is worth knowing that {t}
    you may want to write down that {t}
    before I forget, {t}
    don't forget that {t}
    well, {t}
    so, {t}
    could you store this for me? {t}
    memo: {t}
    {t}, please remember that
    one more thing, {t}
    to be precise, {t}
    you should know that {t}
    I just found out that {t}
    in case I forget, {t}
    I looked it up and {t}
    {t}. Can you remember that?
    make a note, {t}
    they told me {t}
    hey, {t}
    listen, {t}
    okay, {t}
    another thing: {t}
    here is a fact: {t}
    here's something to remember: {t}
    new information: {t}
    {t}, okay?
    for later: {t}
    for your information, {t}
    it may help to know that {t}
    let me tell you that {t}
    let me add that {t}
    {t}, you know
    I'd like you to remember that {t}
    I would like to add that {t}
    did you know that {t}?
    I can tell you that {t}
    what you need to know: {t}
    {t}, by the way
    important: {t}
    not so important, but {t}
    guess what, {t}
    funny enough, {t}
    {t}, in case you need it
    as of today {t}
    for what it's worth, {t}
    if you need it later: {t}
    I'll ask you about this later: {t}
    please store that {t}
    {t}, don't forget
    please save that {t}
    store the following: {t}
    write this down: {t}
    jot down that {t}
    take a note that {t}
    {t}. Remember that
    add to your notes that {t}
    put it in your memory that {t}
    remember for me that {t}
    you might need this: {t}
    I was just thinking that {t}
    {t}, keep that in mind
    the thing is, {t}
    to let you know, {t}
    a quick note: {t}
    quick fact: {t}
    let it be known that {t}
    {t}, if that helps
    I have to tell you that {t}
    I must say that {t}
    as a matter of fact, {t}
    in fact, {t}
    honestly, {t}
    {t}. Please keep it in mind
    as you can see here, {t}
    according to my papers, {t}
    I checked, {t}
    I double-checked and {t}
    I can confirm that {t}
    {t}. Note it down please
    I think I never said it: {t}
    today I learned that {t}
    I have been meaning to say that {t}
    there is something else: {t}
    you will want to know that {t}
    {t}. I will ask you later
    a reminder for later, {t}
    hi, {t}
    right, {t}
    alright, {t}
    first of all, {t}
    {t}. Don't lose it
    next, {t}
    and {t}
    besides, {t}
    now, {t}
    I hear that {t}
    {t}. That's all for now
    everybody knows that {t}
    it is a fact that {t}
    it so happens that {t}
    as it happens, {t}
    you can write that {t}
    {t}. Got it?
    put on record that {t}
    as far as I know, {t}
    if I am not mistaken, {t}
    I am sure that {t}
    I believe {t}
    {t}. Save that
    it says here that {t}
    my notes say {t}
    the letter says {t}
    somebody asked, so: {t}
    let me write it here: {t}
    {t}, for your notes
    {t}, I believe
    {t}, as far as I know
    {t}, that's for sure
    {t}. Write it down
    {t} (remember this)
    {t} - please note
    {t}, thanks
    {t}. Thank you
    {t}, that's how it is
    {t}. You will need that
    {t}, I just checked
    {t}! Keep it safe
    {t}, if I remember well
    """)

NOUN_TELL = lines("""
    {p} is {v}
    {p} is {v}
    {p} is {v}
    {p}: {v}
    {v} is {p}
    {p} would be {v}
    {p} = {v}
    {p} happens to be {v}
    {p}? {v}
    as for {p}, it is {v}
    {p}? That is {v}
    I use {v} as {p}
    {v}, that is {p}
    {p} - {v}
    as {p} I have {v}
    for {p} I use {v}
    for {p} it is {v}
    {v} is what {p} is
    {p}, that is {v}
    here is {p}: {v}
    let me give you {p}: {v}
    {p} will be {v}
    {p} has been {v} for years
    I need you to remember {p}. It's {v}
    {p} is set to {v}
    {p} was set to {v}
    they gave me {v} as {p}
    I got {v} for {p}
    could you store {p} for me? It is {v}
    you asked for {p}: {v}
    I picked {v} as {p}
    {p} turned out to be {v}
    use {v} as {p}
    {p} stands at {v}
    {p} reads {v}
    put down {v} as {p}
    when it comes to {p}, it's {v}
    regarding {p}: {v}
    you can take {v} as {p}
    {p} should be {v}
    {p} is listed as {v}
    we settled on {v} for {p}
    {p} equals {v}
    {p} (that's {v})
    we have {v} down as {p}
    {p} is currently {v}
    {p} is simply {v}
    what I have for {p} is {v}
    {p} has to be {v}
    in my notes {p} is {v}
    the answer to {p} is {v}
    it is {v}, {p}
    {v}: {p}
    {p} must be {v}
    if anybody asks, {p} is {v}
    {p} comes out as {v}
    {p} always was {v}
    {p} really is {v}
    people ask me for {p}: {v}
    concerning {p}, it is {v}
    {v} will be {p}
    the right value for {p} is {v}
    {p} shall be {v}
    let {p} be {v}
    {p} can be given as {v}
    write {v} for {p}
    put {v} for {p}
    enter {v} for {p}
    store {v} under {p}
    file {v} under {p}
    keep {v} as {p}
    {p} is going to be {v}
    take down {p}: {v}
    {p}, in case you wonder, is {v}
    {p}, by the way, is {v}
    {p}, as far as I know, is {v}
    {p} is given as {v}
    {p}, as you may guess, is {v}
    {p} according to the letter is {v}
    you will find that {p} is {v}
    I have {v} for {p}
    {v} goes for {p}
    {p} ... {v}
    the value of {p} is {v}
    {p} -> {v}
    it's {v} for {p}
    they say {p} is {v}
    I set {p} to {v}
    I chose {v} for {p}
    someone gave me {p}, it's {v}
    {p} remains {v}
    {p} is just {v}
    {p} is definitely {v}
    {p} is probably {v}
    {p} was always {v}
    I call {v} {p}
    """)

FIX_FRAMES = lines("""
    actually, {t}
    correction: {t}
    sorry, I was wrong, {t}
    no wait, {t}
    update: {t}
    I made a mistake, {t}
    it turns out {t}
    scratch that, {t}
    I misspoke earlier, {t}
    forget what I said, {t}
    let me correct that: {t}
    as of now, {t}
    from today {t}
    {t} now
    that has changed: {t}
    there was a change: {t}
    things changed, {t}
    I had that wrong, {t}
    oops, {t}
    my mistake, {t}
    I need to correct something: {t}
    {t}, not what I said before
    what I told you is out of date, {t}
    please update your notes: {t}
    change of plan: {t}
    I was mistaken, {t}
    to correct myself, {t}
    {t} from now on
    that was wrong; {t}
    wait, {t}
    hold on, {t}
    I got it wrong before, {t}
    {t}, I was wrong before
    that is outdated, {t}
    since today, {t}
    the old one is no longer right, {t}
    {t} instead
    please correct that: {t}
    it changed again, {t}
    the latest is that {t}
    ignore the earlier one, {t}
    I have to correct this, {t}
    {t}, please update it
    by now {t}
    these days {t}
    {t}. Please correct that
    no, {t}
    pardon me, {t}
    {t}. Forget the old one
    what I said was wrong, {t}
    it is different now, {t}
    {t}. The other one was wrong
    don't use the old one any more, {t}
    I changed my mind, {t}
    apparently {t}
    {t}, sorry about that
    a small correction, {t}
    let me fix that, {t}
    please change that: {t}
    {t} after all
    meanwhile {t}
    in the meantime {t}
    as it turns out, {t}
    """)

NOUN_FIX = lines("""
    {p} is {v}
    {p} is now {v}
    {p} has changed to {v}
    I changed {p} to {v}
    {p} is {v} now
    please change {p} to {v}
    {p} is not {o}, it is {v}
    {p} used to be {o} but now it is {v}
    please update {p}: it is {v}
    not {o}, {p} is {v}
    {p} changed from {o} to {v}
    replace {p} with {v}
    the new value of {p} is {v}
    {p} was updated to {v}
    {p} became {v}
    instead of {o}, {p} is {v}
    {p} is no longer {o}, it's {v}
    set {p} to {v}
    I switched {p} from {o} to {v}
    make {p} {v}
    {p} isn't {o} any more but {v}
    where I said {o}, {p} is really {v}
    {o} was wrong, {p} is {v}
    {p}: {v}, not {o}
    now {p} is {v}
    {p} went from {o} to {v}
    turn {p} into {v}
    update {p} to {v}
    correct {p} to {v}
    {p} got changed to {v}
    let {p} be {v} from now on
    I have a different answer for {p} now: {v}
    {p} is {v} these days
    they changed {p} to {v}
    {p} has become {v}
    they replaced {p}, it is {v}
    overwrite {p} with {v}
    {v} is the new value of {p}
    {v} has replaced {o} as {p}
    {p} should be {v}
    we changed {p}, it's {v}
    the current value of {p} is {v}
    """)

NOUN_ASK = lines("""
    what is {p}?
    what's {p}?
    what is {p}?
    tell me {p}
    do you remember {p}?
    do you know {p}?
    remind me of {p}
    can you tell me {p}?
    what was {p}?
    what was {p} again?
    {p}?
    I forgot {p}, what is it?
    could you remind me what {p} is?
    what did I say {p} was?
    please tell me {p}
    can you recall {p}?
    I need {p}
    what do you have as {p}?
    give me {p}
    do you still know {p}?
    and {p}?
    which one is {p}?
    what {p} did I tell you?
    what's {p} again?
    look up {p}
    I can't remember {p}. What is it?
    may I ask what {p} is?
    would you tell me what {p} is?
    what exactly is {p}?
    which value did I give you for {p}?
    say {p}
    have I told you {p}?
    let me know {p}
    what is the current value of {p}?
    can you look up {p} for me?
    what do you have for {p}?
    please repeat {p}
    any idea what {p} is?
    what did I tell you about {p}?
    what do you know about {p}?
    what did you note for {p}?
    do you happen to know {p}?
    what's stored as {p}?
    can you find {p}?
    what have I said {p} is?
    what's written down for {p}?
    help me remember {p}
    can you remind me of {p}?
    I need to know {p}
    I'd like to know {p}
    show me {p}
    read me {p}
    repeat {p}
    tell me again what {p} is
    what should I put for {p}?
    what should I enter as {p}?
    somebody asks for {p}, what do I say?
    tell me what {p} is
    do you have {p}?
    I wonder what {p} is
    did I mention {p}?
    what would {p} be?
    I don't remember {p}
    {p} please
    {p}, please
    could you give me {p}?
    can I get {p}?
    would you look up {p}?
    check {p} for me
    what does it say for {p}?
    got {p}?
    what has {p} been?
    name {p}
    what was the one for {p}?
    is {p} known to you?
    what value does {p} have?
    {p} was what?
    search your memory for {p}
    """)

ASK_FRAMES = lines("""
    remind me, {q}
    so {q}
    can you tell me, {q}
    tell me, {q}
    do you still know, {q}
    could you tell me, {q}
    I forgot, {q}
    hey, {q}
    quick question, {q}
    {q} I forgot.
    and {q}
    {q} Remind me.
    please tell me, {q}
    one question, {q}
    just to check, {q}
    {q} Do you remember?
    now, {q}
    just curious, {q}
    I can't remember, {q}
    {q} Please tell me.
    {q} I can't recall.
    okay, {q}
    by the way, {q}
    let me see, {q}
    let me ask, {q}
    sorry, {q}
    excuse me, {q}
    one more question: {q}
    I have a question: {q}
    {q} It slipped my mind.
    here is a question, {q}
    do you happen to know, {q}
    hmm, {q}
    before we go on, {q}
    while we are at it, {q}
    check your notes, {q}
    listen, {q}
    you may remember: {q}
    from what I told you, {q}
    according to what I said, {q}
    as I told you earlier, {q}
    think back, {q}
    help me out, {q}
    refresh my memory, {q}
    go through your notes: {q}
    question: {q}
    {q} I need it now.
    {q} I told you earlier.
    {q} Tell me.
    {q} Do you still know?
    {q} Thanks.
    {q} Let me know.
    {q} You should know.
    {q} I would like to know.
    right, {q}
    well, {q}
    alright, {q}
    next question: {q}
    say, {q}
    memory check: {q}
    last question, {q}
    first question: {q}
    answer me this: {q}
    out of interest, {q}
    a friend wants to know, {q}
    they are asking: {q}
    now that I think of it, {q}
    for the form: {q}
    please answer: {q}
    not sure if I said it, but {q}
    I was wondering, {q}
    oh, {q}
    """)

DROP = lines("""
    forget {p}
    please forget {p}
    delete {p}
    you can forget {p}
    erase {p} please
    don't keep {p} any longer
    remove {p} from your memory
    I want you to forget {p}
    please delete {p}
    drop {p}
    get rid of {p}
    you need not remember {p}
    never mind {p}, forget it
    wipe {p}
    clear {p}
    take {p} out of your notes
    strike {p}
    please erase {p}
    {p} can be forgotten
    """)

SELF_NAME_TELL = lines("""
    my name is {v}
    I am {v}
    I'm {v}
    hi, I'm {v}
    call me {v}
    they call me {v}
    people call me {v}
    hello, my name is {v}
    you can call me {v}
    my name is {v}
    this is {v} speaking
    everybody calls me {v}
    I go by {v}
    I was named {v}
    {v} is my name
    the name is {v}
    it's me, {v}
    I answer to {v}
    my friends know me as {v}
    """)
SELF_NAME_ASK = lines("""
    what is my name?
    what's my name?
    who am I?
    what am I called?
    what is my name?
    what name did I give you?
    do you know who I am?
    what should you call me?
    what do people call me?
    how am I called?
    do you know my name?
    which name do I go by?
    tell me my name
    what was my name again?
    by what name do you know me?
    do you remember my name?
    """)

# Names of pets and relatives: {p} is "my cat", {d} is "a cat".
CALLED_TELL = lines("""
    {p} is called {v}
    {p} is called {v}
    {p}'s name is {v}
    the name of {p} is {v}
    {p} is named {v}
    {p} goes by the name of {v}
    I have {d} called {v}
    {v} is the name of {p}
    I have {d} named {v}
    we named {p} {v}
    {p} answers to {v}
    we call {p} {v}
    {p}'s called {v}
    I call {p} {v}
    {p} is known as {v}
    {v} is what {p} is called
    {p} got the name {v}
    {v}, that's the name of {p}
    everyone calls {p} {v}
    the name we gave {p} is {v}
    {p} bears the name {v}
    there is {d} here by the name of {v}
    {p} was given the name {v}
    """)
CALLED_ASK = lines("""
    what is {p} called?
    what's {p}'s name?
    what is {p}'s name?
    what is the name of {p}?
    how is {p} called?
    by what name does {p} go?
    what is {p} named?
    do you remember {p}'s name?
    what do I call {p}?
    tell me the name of {p}
    what name does {p} have?
    what do we call {p}?
    do you know what {p} is called?
    what was {p}'s name again?
    which name does {p} have?
    what did I say {p} is called?
    what name did we give {p}?
    how do people call {p}?
    tell me {p}'s name
    """)
CALLED_FIX = lines("""
    {p} is called {v}
    {p} is not called {o} but {v}
    we renamed {p} to {v}
    {p} is named {v}
    {p}'s name is {v}
    {p} has a new name, {v}
    {p}'s name changed to {v}
    {p} isn't {o} but {v}
    we call {p} {v} now
    {p} goes by {v} now
    """)

# Where things are: {p} is "my keys", {b} is "is" or "are".
PLACE_TELL = lines("""
    {p} {b} in {v}
    I put {p} in {v}
    I left {p} in {v}
    you can find {p} in {v}
    I stored {p} in {v}
    I have {p} in {v}
    {p} can be found in {v}
    I keep {p} in {v}
    I have hidden {p} in {v}
    look for {p} in {v}
    {p} {b} lying in {v}
    {p} ended up in {v}
    I placed {p} in {v}
    the place of {p} is {v}
    {p} {b} kept in {v}
    {p} went into {v}
    we keep {p} in {v}
    I dropped {p} in {v}
    in {v} you will find {p}
    {p} {b} stored in {v}
    I saw {p} in {v}
    {p} {b} inside {v}
    {p} {b} somewhere in {v}
    {v} is where {p} {b}
    I packed {p} into {v}
    {p} {b} to be found in {v}
    somebody put {p} in {v}
    """)
PLACE_ASK = lines("""
    where {b} {p}?
    where did I put {p}?
    where did I leave {p}?
    where can I find {p}?
    where do I look for {p}?
    where might {p} be?
    do you know where {p} {b}?
    I can't find {p}, where {b} {i}?
    tell me where {p} {b}
    in what place {b} {p}?
    where do I keep {p}?
    in which place did I leave {p}?
    where did I store {p}?
    what place {b} {p} in?
    where should I look for {p}?
    have you seen {p}?
    where did I say {p} {b}?
    where have I put {p}?
    I am looking for {p}, where {b} {i}?
    do you remember where {p} {b}?
    where could {p} be?
    I need {p}, where {b} {i}?
    what did I do with {p}?
    where do I have {p}?
    """)
PLACE_FIX = lines("""
    I moved {p} to {v}
    {p} {b} in {v}
    {p} {b} now in {v}
    I put {p} into {v}
    {p} {b} in {v} now
    {p} {b} no longer in {o} but in {v}
    I have put {p} into {v} instead
    {p} {b} not in {o}, {i} {b} in {v}
    {p} moved from {o} to {v}
    I took {p} out of {o} and put {i2} in {v}
    you find {p} in {v} now
    {p} went from {o} into {v}
    """)

# When things happen: {p} is "my flight".
WHEN_TELL = lines("""
    {p} is on {v}
    I have {p} on {v}
    {p} takes place on {v}
    {p} is planned for {v}
    {p} was set for {v}
    {p} has been fixed for {v}
    put {p} down for {v}
    they scheduled {p} for {v}
    remember {p} on {v}
    {p} comes up on {v}
    save the date: {p} is on {v}
    the date of {p} is {v}
    {p} will be on {v}
    my calendar says {p} is on {v}
    {p} happens on {v}
    {v} is the day of {p}
    don't let me miss {p} on {v}
    {p} falls on {v}
    {p} starts on {v}
    they booked {p} for {v}
    {p}: {v}
    on {v} I have {p}
    {p} is scheduled for {v}
    {v} is when {p} is
    mark {v} for {p}
    """)
WHEN_ASK = lines("""
    when is {p}?
    on which day is {p}?
    when does {p} take place?
    what date is {p}?
    for when is {p} planned?
    when is {p} going to be?
    do you know when {p} is?
    when was {p} again?
    tell me when {p} is
    what is the date of {p}?
    when do I have {p}?
    what date was set for {p}?
    what day is {p}?
    which day is {p} on?
    when will {p} be?
    when does {p} happen?
    what time and day is {p}?
    for which day is {p} scheduled?
    on what date is {p}?
    when should I be at {p}?
    what did I say about the date of {p}?
    when did I say {p} is?
    """)
WHEN_FIX = lines("""
    {p} was moved to {v}
    {p} is on {v}
    {p} is now on {v}
    they postponed {p} to {v}
    {p} has been rescheduled to {v}
    {p} was shifted to {v}
    {p} is not on {o}, it is on {v}
    they moved {p} from {o} to {v}
    {p} will be on {v} instead
    the new date of {p} is {v}
    {p} takes place on {v}
    {p} changed from {o} to {v}
    """)

# How many: {n} is "bikes".
COUNT_TELL = lines("""
    I have {v} {n}
    I own {v} {n}
    there are {v} {n} in my home
    I've got {v} {n}
    the number of {n} I have is {v}
    {v} {n} belong to me
    I have exactly {v} {n}
    we have {v} {n}
    there are {v} {n} at my place
    I counted {v} {n}
    {v} {n} are mine
    I am the owner of {v} {n}
    my home has {v} {n}
    I keep {v} {n}
    I have {v} {n} in all
    my {n} are {v} in number
    I have a total of {v} {n}
    I possess {v} {n}
    you can count {v} {n} at my place
    as for {n}, I have {v}
    """)
COUNT_ASK = lines("""
    how many {n} do I have?
    how many {n} do I own?
    how many {n} are there in my home?
    do you know how many {n} I have?
    what is the number of {n} I have?
    how many {n} belong to me?
    tell me how many {n} I have
    count of my {n}?
    what is the count of my {n}?
    how many {n} did I say I have?
    how many {n} are mine?
    what number of {n} have I got?
    do you remember how many {n} I have?
    I have how many {n}?
    what number of {n} do I own?
    how many {n} have I got?
    how many {n} are at my place?
    """)
COUNT_FIX = lines("""
    I have {v} {n}
    I now have {v} {n}
    it is {v} {n} now
    I own {v} {n}
    I have {v} {n}, not {o}
    I don't have {o} {n} but {v}
    the number of {n} is {v}
    it's no longer {o}, I have {v} {n}
    I've got {v} {n}
    """)
