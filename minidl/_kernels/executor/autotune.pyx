"""Choose whether a program runs on one thread or on the team, by measuring which is faster.

A program that may use the team may also run on one thread. The load of the machine may change, so
the program tries the other candidate now and then: samples of the other and of the best so far
alternate. A single sample says little where other work delays whole steps, so the choice changes
only when the other candidate was faster in three pairs in a row. The wait until the next trial is
a multiple of the time that the samples of the other candidate took: five times at first and after
a change, because other work may have caused it; twice the multiple before, up to a hundred, after
each trial that changes nothing.
"""

cdef int64_t SAMPLE = 5000000    # nanoseconds, or one step, if that takes longer
cdef int PAIRS = 3
cdef int64_t FIRST_BACKOFF = 5, LAST_BACKOFF = 100


cdef void reset(ThreadChoice *choice) noexcept nogil:
    """Start with the team, and with a trial at the first run."""
    choice[0] = ThreadChoice(TEAM, False, False, 0, 0, 0, 0, 0, 0, 0)


cdef int choose(ThreadChoice *choice, int64_t *most) noexcept nogil:
    """Return the candidate to run; sets ``most`` to the nanoseconds that it may run at most."""
    if not choice.trial and choice.until_trial <= 0:
        choice.trial = choice.other = True
        choice.spent = choice.sampled = choice.spent_on_other = choice.lead = 0
    most[0] = SAMPLE - choice.spent if choice.trial else choice.until_trial
    return 1 - choice.best if choice.trial and choice.other else choice.best


cdef void observe(ThreadChoice *choice, int64_t spent, Py_ssize_t steps) noexcept nogil:
    """Note how long so many steps took with the candidate that was chosen."""
    cdef int64_t cost
    if not choice.trial:
        choice.until_trial -= spent
        return
    choice.spent, choice.sampled = choice.spent + spent, choice.sampled + steps
    if choice.spent < SAMPLE:
        return
    cost = choice.spent // choice.sampled
    if choice.other:
        choice.cost_of_other, choice.spent_on_other = cost, choice.spent_on_other + choice.spent
    elif choice.cost_of_other < cost:
        choice.lead += 1
        choice.trial = choice.lead < PAIRS
    else:
        choice.lead, choice.trial = 0, False
    choice.other = not choice.other
    choice.spent = choice.sampled = 0
    if choice.trial:
        return
    choice.backoff = min(LAST_BACKOFF, max(FIRST_BACKOFF, 2 * choice.backoff))
    if choice.lead == PAIRS:
        choice.best, choice.backoff = 1 - choice.best, FIRST_BACKOFF
    choice.until_trial = choice.backoff * choice.spent_on_other


def choices_made(list costs):
    """Simulate a program each of whose steps takes ``costs[step][candidate]`` nanoseconds.

    Returns the candidate (0: one thread, 1: the team) chosen for each step. For tests of the rule.
    """
    cdef ThreadChoice choice
    cdef int64_t most
    cdef int candidate
    reset(&choice)
    made = []
    for cost in costs:
        candidate = choose(&choice, &most)
        observe(&choice, cost[candidate], 1)
        made.append(candidate)
    return made
