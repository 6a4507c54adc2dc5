# Whether a program runs alone or together with the team.
#
# A program that may use the team may also run alone, and does what is faster. Now and then, because
# the machine may be busier than it was, or less, it tries the other way: a sample of the one, a
# sample of the other, in turns. Where other work holds up whole steps, a single sample tells
# little; so the way is changed only when the other one was faster in three pairs in a row. The next
# trial comes when the program has run for several times as long as the samples of the other way:
# five times at first, and after a change, which other work may have misled; twice as many after
# each trial that changes nothing, up to a hundred.

cdef int64_t SAMPLE = 5000000    # nanoseconds, or one step, if that takes longer
cdef int PAIRS = 3
cdef int64_t SOON = 5, LATE = 100

cdef enum:
    ALONE, TOGETHER

cdef struct Ways:
    int way
    bint trial, other            # whether a trial is on, and it is the turn of the other way
    int lead                     # pairs in a row in which the other way was faster
    int64_t until_trial, spent, spent_on_other, cost_of_other    # nanoseconds
    int64_t patience             # how many times as long; 0 before the first trial
    Py_ssize_t sampled           # steps in which `spent` was spent


cdef int choose_way(Ways *ways, int64_t *most) noexcept nogil:
    """Which way to go, and for how many nanoseconds at most."""
    if not ways.trial and ways.until_trial <= 0:
        ways.trial = ways.other = True
        ways.spent = ways.sampled = ways.spent_on_other = ways.lead = 0
    most[0] = SAMPLE - ways.spent if ways.trial else ways.until_trial
    return 1 - ways.way if ways.trial and ways.other else ways.way


cdef void note(Ways *ways, int64_t spent, Py_ssize_t steps) noexcept nogil:
    """How long so many steps took, on the way that was chosen."""
    cdef int64_t cost
    if not ways.trial:
        ways.until_trial -= spent
        return
    ways.spent, ways.sampled = ways.spent + spent, ways.sampled + steps
    if ways.spent < SAMPLE:
        return
    cost = ways.spent // ways.sampled
    if ways.other:
        ways.cost_of_other, ways.spent_on_other = cost, ways.spent_on_other + ways.spent
    elif ways.cost_of_other < cost:
        ways.lead += 1
        ways.trial = ways.lead < PAIRS
    else:
        ways.lead, ways.trial = 0, False
    ways.other = not ways.other
    ways.spent = ways.sampled = 0
    if ways.trial:
        return
    ways.patience = min(LATE, max(SOON, 2 * ways.patience))
    if ways.lead == PAIRS:
        ways.way, ways.patience = 1 - ways.way, SOON
    ways.until_trial = ways.patience * ways.spent_on_other


def ways_taken(list costs):
    """The ways (0 alone, 1 together) of a program each of whose steps takes ``costs[step][way]``
    nanoseconds: so that the rule can be tested."""
    cdef Ways ways
    cdef int64_t most
    cdef int way
    ways.way, ways.trial, ways.until_trial, ways.patience = TOGETHER, False, 0, 0
    taken = []
    for cost in costs:
        way = choose_way(&ways, &most)
        note(&ways, cost[way], 1)
        taken.append(way)
    return taken
