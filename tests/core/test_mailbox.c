/* test_mailbox.c: the contract of core/mailbox.h, alone and with core/wake.h. */
#include "core/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "check.h"
#include "core/wake.h"

/* What is pushed. Its fields are not atomic: only push and take order the
 * accesses to them, and ThreadSanitizer reports where they don't. */
typedef struct Letter {
    AioMailNode node; /* first: a node is a letter */
    int pusher;
    int number;
    int deliveries;
} Letter;

static void
a_new_mailbox_is_empty(void)
{
    AioMailbox mailbox;
    aio_mailbox_init(&mailbox);
    CHECK(aio_mailbox_take(&mailbox) == NULL);
    CHECK(aio_mailbox_take(&mailbox) == NULL);
}

static void
only_the_push_that_finds_it_empty_asks_for_a_wake_up(void)
{
    AioMailbox mailbox;
    AioMailNode nodes[3];
    aio_mailbox_init(&mailbox);
    for (int round = 0; round < 3; round++) {
        CHECK(aio_mailbox_push(&mailbox, &nodes[0]) == AIO_MAIL_FIRST);
        CHECK(aio_mailbox_push(&mailbox, &nodes[1]) == AIO_MAIL_MORE);
        CHECK(aio_mailbox_push(&mailbox, &nodes[2]) == AIO_MAIL_MORE);
        CHECK(aio_mailbox_take(&mailbox) == &nodes[0]);
    }
}

static void
take_gives_everything_oldest_first(void)
{
    AioMailbox mailbox;
    AioMailNode nodes[3];
    aio_mailbox_init(&mailbox);
    for (int i = 0; i < 3; i++) {
        aio_mailbox_push(&mailbox, &nodes[i]);
    }
    AioMailNode *first = aio_mailbox_take(&mailbox);
    CHECK(first == &nodes[0]);
    CHECK(first->next == &nodes[1]);
    CHECK(first->next->next == &nodes[2]);
    CHECK(first->next->next->next == NULL);
    CHECK(aio_mailbox_take(&mailbox) == NULL);
}

static void
close_gives_what_was_left_and_refuses_what_comes(void)
{
    AioMailbox mailbox;
    AioMailNode nodes[3];
    aio_mailbox_init(&mailbox);
    aio_mailbox_push(&mailbox, &nodes[0]);
    aio_mailbox_push(&mailbox, &nodes[1]);
    AioMailNode *first = aio_mailbox_close(&mailbox);
    CHECK(first == &nodes[0]);
    CHECK(first->next == &nodes[1]);
    CHECK(first->next->next == NULL);
    CHECK(aio_mailbox_push(&mailbox, &nodes[2]) == AIO_MAIL_CLOSED);
    CHECK(aio_mailbox_take(&mailbox) == NULL);
    CHECK(aio_mailbox_push(&mailbox, &nodes[2]) == AIO_MAIL_CLOSED);
}

static void
closing_again_gives_nothing_and_leaves_it_closed(void)
{
    AioMailbox mailbox;
    AioMailNode node;
    aio_mailbox_init(&mailbox);
    CHECK(aio_mailbox_close(&mailbox) == NULL);
    CHECK(aio_mailbox_close(&mailbox) == NULL);
    CHECK(aio_mailbox_push(&mailbox, &node) == AIO_MAIL_CLOSED);
    CHECK(aio_mailbox_close(&mailbox) == NULL);
}

static void
no_push_asks_for_a_wake_up_while_the_reader_attends(void)
{
    AioMailbox mailbox;
    AioMailNode nodes[3];
    aio_mailbox_init(&mailbox);
    CHECK(!aio_mailbox_has_mail(&mailbox));
    aio_mailbox_attend(&mailbox);
    CHECK(!aio_mailbox_leave(&mailbox));
    aio_mailbox_attend(&mailbox);
    CHECK(aio_mailbox_push(&mailbox, &nodes[0]) == AIO_MAIL_MORE);
    CHECK(aio_mailbox_has_mail(&mailbox));
    CHECK(aio_mailbox_take(&mailbox) == &nodes[0]);
    CHECK(aio_mailbox_push(&mailbox, &nodes[1]) == AIO_MAIL_MORE);
    CHECK(aio_mailbox_leave(&mailbox));
    CHECK(aio_mailbox_take(&mailbox) == &nodes[1]);
    CHECK(aio_mailbox_push(&mailbox, &nodes[2]) == AIO_MAIL_FIRST);
}

static void
a_closed_mailbox_has_nothing_for_a_reader_that_leaves(void)
{
    AioMailbox mailbox;
    aio_mailbox_init(&mailbox);
    aio_mailbox_attend(&mailbox);
    CHECK(aio_mailbox_close(&mailbox) == NULL);
    CHECK(!aio_mailbox_leave(&mailbox));
}

/* ---- several pushers, one reader ----------------------------------------- */

enum { PUSHERS = 3 };

typedef struct Post Post;

typedef struct Pusher {
    Post *post;
    int index;
    int count; /* letters to push */
    Letter *letters;
    /* Read after the thread was joined: */
    int accepted; /* pushes taken in; they come before all that were refused */
    int firsts;   /* those of them that asked for a wake-up */
} Pusher;

struct Post {
    AioMailbox mailbox;
    AioWake wake;
    Pusher pushers[PUSHERS];
    pthread_t threads[PUSHERS];
    Barrier start;
    /* The reader's: */
    int received[PUSHERS];
    int received_in_all;
    int full_takes; /* takes that found something */
};

static void *
push_letters(void *raw)
{
    Pusher *pusher = raw;
    Post *post = pusher->post;
    uint32_t random_state = 17u * (uint32_t)pusher->index + 1;
    barrier_wait(&post->start);
    for (int i = 0; i < pusher->count; i++) {
        Letter *letter = &pusher->letters[i];
        letter->pusher = pusher->index;
        letter->number = i;
        letter->deliveries = 0;
        switch (aio_mailbox_push(&post->mailbox, &letter->node)) {
        case AIO_MAIL_FIRST:
            pusher->firsts++;
            aio_wake_signal(&post->wake);
            /* fall through */
        case AIO_MAIL_MORE:
            CHECK(pusher->accepted == i); /* none was refused before */
            pusher->accepted++;
            break;
        case AIO_MAIL_CLOSED:
            CHECK(letter->number == i && letter->deliveries == 0);
            break;
        }
        if (next_random(&random_state) % 8 == 0) {
            dawdle(&random_state, 2000); /* let the reader catch up with us */
        }
    }
    return NULL;
}

static Post *
open_post(int letters_each)
{
    Post *post = calloc(1, sizeof *post);
    CHECK(post != NULL);
    aio_mailbox_init(&post->mailbox);
    CHECK(aio_wake_init(&post->wake) == 0);
    barrier_init(&post->start, PUSHERS + 1);
    for (int i = 0; i < PUSHERS; i++) {
        Letter *letters = malloc((size_t)letters_each * sizeof *letters);
        CHECK(letters != NULL);
        post->pushers[i] =
            (Pusher){.post = post, .index = i, .count = letters_each, .letters = letters};
        post->threads[i] = start_thread(push_letters, &post->pushers[i]);
    }
    barrier_wait(&post->start);
    return post;
}

static void
join_pushers(Post *post)
{
    for (int i = 0; i < PUSHERS; i++) {
        join_thread(post->threads[i]);
    }
}

static void
free_post(Post *post)
{
    for (int i = 0; i < PUSHERS; i++) {
        free(post->pushers[i].letters);
    }
    barrier_destroy(&post->start);
    aio_wake_destroy(&post->wake);
    free(post);
}

/* Check what take or close gave: each letter once, each pusher's in order. */
static void
receive(Post *post, AioMailNode *node)
{
    post->full_takes += node != NULL;
    while (node != NULL) {
        Letter *letter = (Letter *)node;
        node = node->next;
        CHECK(letter->deliveries == 0);
        letter->deliveries++;
        CHECK(letter->number == post->received[letter->pusher]);
        post->received[letter->pusher]++;
        post->received_in_all++;
    }
}

static void
wait_for_mail(Post *post)
{
    struct pollfd readable = {.fd = aio_wake_fd(&post->wake), .events = POLLIN};
    while (poll(&readable, 1, -1) < 0) {
        CHECK(errno == EINTR);
    }
    aio_wake_clear(&post->wake);
}

static void
each_node_arrives_once_in_its_pushers_order_at_a_reader_that_polls(void)
{
    enum { LETTERS = 50000 };
    Post *post = open_post(LETTERS);
    /* A wake-up that is missing would leave us in poll() for ever. */
    while (post->received_in_all < PUSHERS * LETTERS) {
        wait_for_mail(post);
        receive(post, aio_mailbox_take(&post->mailbox));
    }
    join_pushers(post);
    CHECK(aio_mailbox_take(&post->mailbox) == NULL);
    int firsts = 0;
    for (int i = 0; i < PUSHERS; i++) {
        CHECK(post->pushers[i].accepted == LETTERS);
        CHECK(post->received[i] == LETTERS);
        firsts += post->pushers[i].firsts;
    }
    /* Each filling was announced by exactly one pusher. */
    CHECK(firsts == post->full_takes);
    EXPECT_MET(post->full_takes > 1);
    free_post(post);
}

static void
closing_refuses_exactly_the_pushes_after_it(void)
{
    enum { ROUNDS = 150, LETTERS = 500 };
    uint32_t random_state = 5;
    int rounds_cut_short = 0;
    for (int round = 0; round < ROUNDS; round++) {
        Post *post = open_post(LETTERS);
        const int enough = (int)(next_random(&random_state) % (PUSHERS * LETTERS));
        while (post->received_in_all < enough) {
            wait_for_mail(post);
            receive(post, aio_mailbox_take(&post->mailbox));
        }
        dawdle(&random_state, 5000);
        receive(post, aio_mailbox_close(&post->mailbox));
        CHECK(aio_mailbox_take(&post->mailbox) == NULL);
        join_pushers(post);
        CHECK(aio_mailbox_take(&post->mailbox) == NULL);
        for (int i = 0; i < PUSHERS; i++) {
            /* Accepted were the first so many, and all of these were received. */
            CHECK(post->received[i] == post->pushers[i].accepted);
            for (int j = 0; j < LETTERS; j++) {
                CHECK(post->pushers[i].letters[j].deliveries == (j < post->received[i]));
            }
        }
        rounds_cut_short += post->received_in_all < PUSHERS * LETTERS;
        free_post(post);
    }
    EXPECT_MET(rounds_cut_short > 0);
}

enum { DUELS = 100000 };

typedef struct Duel {
    AioMailbox mailboxes[DUELS]; /* one for each round, so that nothing is set up in between */
    AioMailNode nodes[DUELS];
    AioMailResult pushed[DUELS];
    bool was_found[DUELS]; /* in what close gave, or by leave */
    _Atomic int pusher_round;
    _Atomic int reader_round;
} Duel;

static void *
push_in_duels(void *raw)
{
    Duel *duel = raw;
    uint32_t random_state = 61;
    for (int i = 0; i < DUELS; i++) {
        line_up(&duel->pusher_round, &duel->reader_round, i + 1);
        dawdle(&random_state, i % 8 == 0 ? 300 : 30);
        duel->pushed[i] = aio_mailbox_push(&duel->mailboxes[i], &duel->nodes[i]);
    }
    return NULL;
}

static void
a_push_at_the_moment_of_close_is_either_refused_or_found(void)
{
    Duel *duel = calloc(1, sizeof *duel);
    uint32_t random_state = 67;
    int refused = 0;
    CHECK(duel != NULL);
    for (int i = 0; i < DUELS; i++) {
        aio_mailbox_init(&duel->mailboxes[i]);
    }
    pthread_t thread = start_thread(push_in_duels, duel);
    for (int i = 0; i < DUELS; i++) {
        line_up(&duel->reader_round, &duel->pusher_round, i + 1);
        dawdle(&random_state, i % 8 == 0 ? 300 : 30);
        duel->was_found[i] = aio_mailbox_close(&duel->mailboxes[i]) == &duel->nodes[i];
    }
    join_thread(thread);
    for (int i = 0; i < DUELS; i++) {
        const bool was_refused = duel->pushed[i] == AIO_MAIL_CLOSED;
        CHECK(was_refused != duel->was_found[i]);
        refused += was_refused;
    }
    EXPECT_MET(refused > 0 && refused < DUELS);
    free(duel);
}

static void
a_push_at_the_moment_of_leaving_wakes_the_reader_or_is_seen_by_it(void)
{
    Duel *duel = calloc(1, sizeof *duel);
    uint32_t random_state = 71;
    int seen = 0;
    CHECK(duel != NULL);
    for (int i = 0; i < DUELS; i++) {
        aio_mailbox_init(&duel->mailboxes[i]);
        aio_mailbox_attend(&duel->mailboxes[i]);
    }
    pthread_t thread = start_thread(push_in_duels, duel);
    for (int i = 0; i < DUELS; i++) {
        line_up(&duel->reader_round, &duel->pusher_round, i + 1);
        dawdle(&random_state, i % 8 == 0 ? 300 : 30);
        duel->was_found[i] = aio_mailbox_leave(&duel->mailboxes[i]);
    }
    join_thread(thread);
    for (int i = 0; i < DUELS; i++) {
        /* Both is possible, and costs a wake-up too many. */
        CHECK(duel->pushed[i] == AIO_MAIL_FIRST || duel->was_found[i]);
        CHECK(aio_mailbox_take(&duel->mailboxes[i]) == &duel->nodes[i]);
        seen += duel->was_found[i];
    }
    EXPECT_MET(seen > 0 && seen < DUELS);
    free(duel);
}

int
main(void)
{
    RUN(a_new_mailbox_is_empty);
    RUN(only_the_push_that_finds_it_empty_asks_for_a_wake_up);
    RUN(take_gives_everything_oldest_first);
    RUN(close_gives_what_was_left_and_refuses_what_comes);
    RUN(closing_again_gives_nothing_and_leaves_it_closed);
    RUN(no_push_asks_for_a_wake_up_while_the_reader_attends);
    RUN(a_closed_mailbox_has_nothing_for_a_reader_that_leaves);
    RUN(each_node_arrives_once_in_its_pushers_order_at_a_reader_that_polls);
    RUN(closing_refuses_exactly_the_pushes_after_it);
    RUN(a_push_at_the_moment_of_close_is_either_refused_or_found);
    RUN(a_push_at_the_moment_of_leaving_wakes_the_reader_or_is_seen_by_it);
    return 0;
}
