/* load: speaks prepared milter sessions to milters, and keeps every reply and every latency.
 *
 *   load SCRIPT REPLIES CONCURRENCY SECONDS COUNT
 *
 * SCRIPT holds messages, each as the operations of one connection (milter_script.py writes it and says what they
 * mean). CONCURRENCY threads take the messages in order, beginning anew after the last, until SECONDS have passed
 * or COUNT messages were begun (0: no bound). What was begun is finished. REPLIES gets for each message its number,
 * its latency and what the milters answered to its end: it is judged afterwards, outside the timed part.
 *
 * A thread writes as Postfix 3.7 does: through a buffer of 4096 octets that is emptied when it is full and before a
 * reply is read. Anything that is not in the script (another answer to the negotiation, a milter that hangs up) ends
 * the program with exit code 1 and a word on stderr: there is no measurement then.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_MILTERS = 4,
    HDR_LEADSPC = 0x100000,      /* of the steps that are negotiated */
    WRITE_BUFFER = 4096,         /* Postfix's VSTREAM_BUFSIZE */
    READ_BUFFER = 4096,
    MAX_REPLY = 1 << 20,         /* libmilter's own bound is below that */
    MAX_INSERTED = 16,
    MAX_CONCURRENCY = 256,
    PATIENCE_S = 300,            /* Postfix's milter_content_timeout */
};

typedef struct {
    uint8_t *octets;
    size_t length, room;
} Buffer;

typedef struct {
    int descriptor;
    bool skips_body, keeps_blank;
    size_t pending, begin, end;
    uint8_t out[WRITE_BUFFER], in[READ_BUFFER];
} Connection;

typedef struct {
    Connection milters[MAX_MILTERS];
    Buffer results, replies, packet;
    size_t inserted[MAX_INSERTED]; /* where in `replies` each inserted field is: 4 octets of length, name, value */
    unsigned inserted_count;
    unsigned count; /* of milters */
    uint64_t finished; /* of messages */
} Thread;

typedef struct {
    uint32_t number; /* of the message in the script */
    uint32_t replies_length;
    uint64_t latency_ns;
} Result;

static const uint8_t *script;
static uint32_t message_count;
static uint64_t deadline_ns, limit;
static atomic_uint_fast64_t begun;

static _Noreturn void give_up(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    flockfile(stderr);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    _exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t number_at(const uint8_t *octets) {
    uint32_t value;
    memcpy(&value, octets, sizeof value);
    return ntohl(value);
}

static void append(Buffer *buffer, const void *octets, size_t length) {
    if (buffer->length + length > buffer->room) {
        buffer->room = (buffer->length + length) * 2;
        buffer->octets = realloc(buffer->octets, buffer->room);
        if (buffer->octets == NULL) give_up("out of memory");
    }
    memcpy(buffer->octets + buffer->length, octets, length);
    buffer->length += length;
}

/* The connection */

static void open_connection(Connection *milter, const uint8_t *path, size_t length) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    if (length >= sizeof address.sun_path) give_up("the path of a socket is too long");
    memcpy(address.sun_path, path, length);
    milter->descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (milter->descriptor < 0) give_up("socket: %s", strerror(errno));
    setsockopt(milter->descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(milter->descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(milter->descriptor, (struct sockaddr *)&address, sizeof address) != 0)
        give_up("connect to %s: %s", address.sun_path, strerror(errno));
    milter->pending = milter->begin = milter->end = 0;
    milter->skips_body = false;
}

static void flush(Connection *milter) {
    for (size_t done = 0; done < milter->pending;) {
        ssize_t sent = send(milter->descriptor, milter->out + done, milter->pending - done, MSG_NOSIGNAL);
        if (sent < 0) give_up("a milter hung up while it was written to: %s", strerror(errno));
        done += (size_t)sent;
    }
    milter->pending = 0;
}

static void put(Connection *milter, const uint8_t *octets, size_t length) {
    while (length > 0) {
        size_t part = WRITE_BUFFER - milter->pending;
        if (part > length) part = length;
        memcpy(milter->out + milter->pending, octets, part);
        milter->pending += part, octets += part, length -= part;
        if (milter->pending == WRITE_BUFFER) flush(milter);
    }
}

static void get(Connection *milter, uint8_t *octets, size_t length) {
    while (length > 0) {
        if (milter->begin == milter->end) {
            ssize_t received = recv(milter->descriptor, milter->in, READ_BUFFER, 0);
            if (received == 0) give_up("a milter hung up");
            if (received < 0) give_up("no answer from a milter: %s", strerror(errno));
            milter->begin = 0, milter->end = (size_t)received;
        }
        size_t part = milter->end - milter->begin;
        if (part > length) part = length;
        memcpy(octets, milter->in + milter->begin, part);
        milter->begin += part, octets += part, length -= part;
    }
}

/* A reply without its length into thread->packet. */
static void read_reply(Thread *thread, Connection *milter) {
    uint8_t head[4];
    flush(milter);
    get(milter, head, sizeof head);
    uint32_t length = number_at(head);
    if (length == 0 || length > MAX_REPLY) give_up("a reply of %u octets", length);
    if (thread->packet.room < length) {
        thread->packet.length = 0;
        thread->packet.room = length * 2;
        free(thread->packet.octets);
        thread->packet.octets = malloc(thread->packet.room);
        if (thread->packet.octets == NULL) give_up("out of memory");
    }
    get(milter, thread->packet.octets, length);
    thread->packet.length = length;
}

static void read_continue(Thread *thread, Connection *milter) {
    read_reply(thread, milter);
    if (thread->packet.octets[0] == 's')
        milter->skips_body = true;
    else if (thread->packet.octets[0] != 'c')
        give_up("a milter answered '%c' before the end of the message", thread->packet.octets[0]);
}

/* The operations */

static void negotiate(Thread *thread, Connection *milter, const uint8_t *octets, size_t length) {
    uint32_t offer = number_at(octets);
    put(milter, octets + 4, offer);
    read_reply(thread, milter);
    if (thread->packet.length != length - 4 - offer ||
        memcmp(thread->packet.octets, octets + 4 + offer, thread->packet.length) != 0)
        give_up("a milter negotiated something else than before");
    milter->keeps_blank = (number_at(thread->packet.octets + 9) & HDR_LEADSPC) != 0;
}

/* The fields that earlier milters inserted go before all others, the last inserted first. A milter that did not
 * negotiate SMFIP_HDR_LEADSPC neither gives nor gets the blank after the colon. */
static void send_inserted(Thread *thread, Connection *milter, const uint8_t *macros, size_t length, bool answered) {
    for (unsigned each = thread->inserted_count; each-- > 0;) {
        const uint8_t *packet = thread->replies.octets + thread->inserted[each];
        const Connection *source = &thread->milters[packet[-1]];
        const uint8_t *name = packet + 4 + 1 + 4, *end = packet + 4 + number_at(packet);
        const uint8_t *value = memchr(name, 0, (size_t)(end - name));
        if (value == NULL) give_up("a milter inserted a field without a name");
        value++;
        bool adds_blank = milter->keeps_blank && !source->keeps_blank;
        if (!milter->keeps_blank && source->keeps_blank)
            while (*value == ' ') value++;
        size_t name_length = strlen((const char *)name) + 1;
        size_t value_length = strlen((const char *)value) + 1;
        uint32_t packet_length = htonl((uint32_t)(1 + name_length + adds_blank + value_length));
        put(milter, macros, length);
        put(milter, (const uint8_t *)&packet_length, sizeof packet_length);
        put(milter, (const uint8_t *)"L", 1);
        put(milter, name, name_length);
        if (adds_blank) put(milter, (const uint8_t *)" ", 1);
        put(milter, value, value_length);
        if (answered) read_continue(thread, milter);
    }
}

/* `at` is where the packet is in thread->replies: its length, 'i', an index of 4 octets, name and value. */
static void remember_inserted(Thread *thread, size_t at) {
    const uint8_t *packet = thread->replies.octets + at;
    uint32_t length = number_at(packet);
    if (length < 8 || packet[4 + length - 1] != 0) give_up("a milter inserted a malformed field");
    if (number_at(packet + 5) > 1) give_up("a milter inserted a field elsewhere than on top");
    if (thread->inserted_count == MAX_INSERTED) give_up("milters inserted more than %d fields", MAX_INSERTED);
    thread->inserted[thread->inserted_count++] = at;
}

static void end_message(Thread *thread, Connection *milter, uint8_t number) {
    for (;;) {
        read_reply(thread, milter);
        uint8_t kind = thread->packet.octets[0];
        if (kind == 'p') continue;
        uint32_t length = htonl((uint32_t)thread->packet.length);
        append(&thread->replies, &number, 1);
        size_t at = thread->replies.length;
        append(&thread->replies, &length, sizeof length);
        append(&thread->replies, thread->packet.octets, thread->packet.length);
        if (strchr("hmiqbe+-2", kind) == NULL) return;
        if (kind == 'i' && number + 1u < thread->count) remember_inserted(thread, at);
    }
}

static void run_operation(Thread *thread, uint8_t operation, uint8_t number, const uint8_t *octets, size_t length) {
    Connection *milter = &thread->milters[number];
    switch (operation) {
    case 'C': open_connection(milter, octets, length); break;
    case 'O': negotiate(thread, milter, octets, length); break;
    case 'W': put(milter, octets, length); break;
    case 'F': flush(milter); break;
    case 'R': read_continue(thread, milter); break;
    case 'B':
    case 'b':
        if (milter->skips_body) break;
        put(milter, octets, length);
        if (operation == 'b') read_continue(thread, milter);
        break;
    case 'I':
    case 'i': send_inserted(thread, milter, octets, length, operation == 'i'); break;
    case 'E': end_message(thread, milter, number); break;
    default: give_up("the script has an operation '%c'", operation);
    }
}

static const uint8_t *message_at(uint32_t number, size_t *length) {
    const uint8_t *entry = script + 8 + (size_t)number * 16;
    uint64_t where, size;
    memcpy(&where, entry, 8);
    memcpy(&size, entry + 8, 8);
    *length = size;
    return script + where;
}

static void run_message(Thread *thread, uint32_t number) {
    size_t length;
    const uint8_t *at = message_at(number, &length), *end = at + length;
    uint64_t started = now_ns();
    thread->count = 0;
    thread->replies.length = 0;
    thread->inserted_count = 0;
    while (at < end) {
        uint32_t size = number_at(at + 2);
        if (at[1] >= MAX_MILTERS) give_up("the script has more than %d milters", MAX_MILTERS);
        if (at[0] == 'C') thread->count = at[1] + 1u;
        if (at[0] == 'X') break; /* what follows a message is not in its latency */
        run_operation(thread, at[0], at[1], at + 6, size);
        at += 6 + size;
    }
    Result result = {number, (uint32_t)thread->replies.length, now_ns() - started};
    append(&thread->results, &result, sizeof result);
    append(&thread->results, thread->replies.octets, thread->replies.length);
    thread->finished++;
    for (unsigned each = 0; each < thread->count; each++) {
        put(&thread->milters[each], at + 6, number_at(at + 2));
        flush(&thread->milters[each]);
        close(thread->milters[each].descriptor);
    }
}

static void *run_thread(void *argument) {
    Thread *thread = argument;
    while (now_ns() < deadline_ns) {
        uint64_t mine = atomic_fetch_add(&begun, 1);
        if (limit != 0 && mine >= limit) break;
        run_message(thread, (uint32_t)(mine % message_count));
    }
    return NULL;
}

static void map_script(const char *path) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0) give_up("%s: %s", path, strerror(errno));
    script = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, descriptor, 0);
    if (script == MAP_FAILED || memcmp(script, "MGS1", 4) != 0) give_up("%s is not a script", path);
    memcpy(&message_count, script + 4, sizeof message_count);
    if (message_count == 0) give_up("%s has no message", path);
}

int main(int count, char **arguments) {
    if (count != 6) give_up("usage: load SCRIPT REPLIES CONCURRENCY SECONDS COUNT");
    unsigned concurrency = (unsigned)atoi(arguments[3]);
    if (concurrency == 0 || concurrency > MAX_CONCURRENCY) give_up("concurrency: 1 to %d", MAX_CONCURRENCY);
    map_script(arguments[1]);
    limit = strtoull(arguments[5], NULL, 10);

    static Thread threads[MAX_CONCURRENCY];
    pthread_t ids[MAX_CONCURRENCY];
    uint64_t started = now_ns();
    deadline_ns = started + (uint64_t)(strtod(arguments[4], NULL) * 1e9);
    for (unsigned each = 0; each < concurrency; each++)
        if (pthread_create(&ids[each], NULL, run_thread, &threads[each]) != 0) give_up("no thread could be made");
    for (unsigned each = 0; each < concurrency; each++) pthread_join(ids[each], NULL);
    double seconds = (double)(now_ns() - started) / 1e9;

    FILE *replies = fopen(arguments[2], "wb");
    if (replies == NULL) give_up("%s: %s", arguments[2], strerror(errno));
    uint64_t finished = 0;
    for (unsigned each = 0; each < concurrency; each++) {
        finished += threads[each].finished;
        if (fwrite(threads[each].results.octets, 1, threads[each].results.length, replies) !=
            threads[each].results.length)
            give_up("%s: %s", arguments[2], strerror(errno));
    }
    if (fclose(replies) != 0) give_up("%s: %s", arguments[2], strerror(errno));
    printf("{\"messages\": %llu, \"seconds\": %.6f}\n", (unsigned long long)finished, seconds);
    return 0;
}
