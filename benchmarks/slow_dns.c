/* slow_dns: holds each DNS query for a while before it hands it on to the resolver behind it, and notes it.
 *
 *   slow_dns PORT UPSTREAM_PORT DELAY_S ZONE ZONE_DELAY_S LOG
 *
 * Both are on 127.0.0.1, UDP alone. Names in ZONE (lower case, without the final dot; empty for none) are held for
 * ZONE_DELAY_S, all others for DELAY_S. LOG gets a line for each query: when it came, in seconds of the monotonic
 * clock, and for which name. Many are held at once; one too many is dropped, and so is what is no query. Each costs a
 * few microseconds, so that those that are compared do not have to share the machine with it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    MAX_QUERY = 1024,
    MAX_ANSWER = 65535,
    MAX_HELD = 8192,
    MAX_NAME = 256, /* RFC 1035 section 2.3.4 allows 255 octets */
    HEADER = 12,    /* RFC 1035 section 4.1.1 */
    NUMBERS = 65536,
    SOCKET_BUFFER = 4 << 20, /* a burst is kept, as long as it takes to come to it */
};

typedef struct {
    uint64_t due_ns;
    struct sockaddr_in client;
    size_t length;
    uint8_t octets[MAX_QUERY];
} Held;

/* All that are held for the same time, in the order in which they came, which is that in which they are due. */
typedef struct {
    uint64_t delay_ns;
    size_t first, count;
    Held held[MAX_HELD];
} Queue;

/* Who waits for the answer to the query that was handed on under a number. */
typedef struct {
    struct sockaddr_in client;
    uint8_t identity[2];
} Asked;

static Queue queues[2];
static Asked asked[NUMBERS];
static const char *zone;
static int clients, upstream;
static FILE *queries;

static _Noreturn void give_up(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("slow_dns: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct sockaddr_in on_this_machine(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int open_socket(void) {
    int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = SOCKET_BUFFER;
    if (made < 0) give_up("socket: %s", strerror(errno));
    /* Only root may have more than the system's limit. */
    if (setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0)
        setsockopt(made, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    return made;
}

/* The first question's name, lower case, without the final dot (RFC 1035 section 4.1.2). False if there is none. */
static bool read_name(const uint8_t *octets, size_t length, char name[MAX_NAME]) {
    size_t used = 0;
    for (size_t at = HEADER; at < length && octets[at] != 0;) {
        size_t label = octets[at++];
        if (at + label > length || used + label + 2 > MAX_NAME) return false;
        if (used > 0) name[used++] = '.';
        for (; label > 0; label--, at++) name[used++] = isgraph(octets[at]) ? (char)tolower(octets[at]) : '?';
    }
    name[used] = 0;
    return length > HEADER;
}

static bool is_in_zone(const char *name) {
    size_t length = strlen(name), of_zone = strlen(zone);
    if (of_zone == 0 || length < of_zone || strcmp(name + length - of_zone, zone) != 0) return false;
    return length == of_zone || name[length - of_zone - 1] == '.';
}

static void take_queries(void) {
    static uint8_t octets[MAX_QUERY + 1];
    for (;;) {
        struct sockaddr_in client;
        socklen_t size = sizeof client;
        ssize_t length =
            recvfrom(clients, octets, sizeof octets, MSG_DONTWAIT, (struct sockaddr *)&client, &size);
        if (length < 0) return;
        char name[MAX_NAME];
        if (length > MAX_QUERY || !read_name(octets, (size_t)length, name)) continue;
        uint64_t now = now_ns();
        fprintf(queries, "%llu.%06llu %s\n", (unsigned long long)(now / 1000000000u),
                (unsigned long long)(now / 1000 % 1000000u), name);
        Queue *queue = &queues[is_in_zone(name)];
        if (queue->count == MAX_HELD) continue;
        Held *held = &queue->held[(queue->first + queue->count++) % MAX_HELD];
        held->due_ns = now + queue->delay_ns;
        held->client = client;
        held->length = (size_t)length;
        memcpy(held->octets, octets, (size_t)length);
    }
}

static void hand_on(Queue *queue, uint64_t now) {
    static uint16_t number;
    for (; queue->count > 0 && queue->held[queue->first].due_ns <= now; queue->count--) {
        Held *held = &queue->held[queue->first];
        queue->first = (queue->first + 1) % MAX_HELD;
        number++;
        asked[number].client = held->client;
        memcpy(asked[number].identity, held->octets, 2);
        held->octets[0] = (uint8_t)(number >> 8), held->octets[1] = (uint8_t)number;
        /* What is lost here is lost as on any network: the client asks again. */
        (void)!send(upstream, held->octets, held->length, 0);
    }
}

static void take_answers(void) {
    static uint8_t octets[MAX_ANSWER];
    for (;;) {
        ssize_t length = recv(upstream, octets, sizeof octets, MSG_DONTWAIT);
        if (length < 0) return;
        if (length < HEADER) continue;
        const Asked *who = &asked[octets[0] << 8 | octets[1]];
        memcpy(octets, who->identity, 2);
        (void)!sendto(clients, octets, (size_t)length, 0, (const struct sockaddr *)&who->client, sizeof who->client);
    }
}

/* How long until something is due; a long time if nothing is held. */
static struct timespec next_due(uint64_t now) {
    uint64_t due = now + 3600 * UINT64_C(1000000000);
    for (int each = 0; each < 2; each++)
        if (queues[each].count > 0 && queues[each].held[queues[each].first].due_ns < due)
            due = queues[each].held[queues[each].first].due_ns;
    uint64_t left = due > now ? due - now : 0;
    return (struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
}

int main(int count, char **arguments) {
    if (count != 7) give_up("usage: slow_dns PORT UPSTREAM_PORT DELAY_S ZONE ZONE_DELAY_S LOG");
    struct sockaddr_in here = on_this_machine(arguments[1]), behind = on_this_machine(arguments[2]);
    queues[0].delay_ns = (uint64_t)(strtod(arguments[3], NULL) * 1e9);
    zone = arguments[4];
    queues[1].delay_ns = (uint64_t)(strtod(arguments[5], NULL) * 1e9);
    queries = fopen(arguments[6], "w");
    if (queries == NULL) give_up("%s: %s", arguments[6], strerror(errno));
    setvbuf(queries, NULL, _IOLBF, 0);
    clients = open_socket();
    upstream = open_socket();
    if (bind(clients, (struct sockaddr *)&here, sizeof here) != 0) give_up("bind: %s", strerror(errno));
    if (connect(upstream, (struct sockaddr *)&behind, sizeof behind) != 0) give_up("connect: %s", strerror(errno));

    struct pollfd sockets[] = {{.fd = clients, .events = POLLIN}, {.fd = upstream, .events = POLLIN}};
    for (;;) {
        struct timespec left = next_due(now_ns());
        if (ppoll(sockets, 2, &left, NULL) < 0 && errno != EINTR) give_up("poll: %s", strerror(errno));
        take_queries();
        take_answers();
        hand_on(&queues[0], now_ns());
        hand_on(&queues[1], now_ns());
    }
}
