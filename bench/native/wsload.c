/* wsload: a load maker for agents' WebSockets, light enough to outrun any server on the other core.
 *
 *   wsload PORT PATH CONNS SECONDS MODE ARG PAYLOAD [HELLO CREDENTIALS]
 *
 *   MODE flood ARG frames per send(), as fast as the sockets take them
 *        rate  ARG frames a second in total, one per send(), round-robin
 *        echo  (ARG unused) one frame outstanding per connection, answered by the same bytes
 *        idle  (ARG unused) connect, say hello, and sit still
 *
 * PAYLOAD is a file with one frame's text. Each "SEQSEQSEQS" in it becomes a rising number of ten digits, so a
 * frame may hold many heartbeats. HELLO is a file with the first frame, in which "NNNNNN" becomes the number of
 * the connection; CREDENTIALS has one bearer token a line. With HELLO the server's acknowledgements are read:
 * they must rise and never be ahead, and after the time is up the last one of each connection is waited for.
 *
 * Prints one line of JSON. Exit 1: connection refused, closed, or a wrong answer; the reason is on stderr.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARK "SEQSEQSEQS"
#define DIGITS 10
#define FIRST_SEQ 1000000000ULL
#define MARKS_MAX 64
#define IN_BYTES 8192
#define PATIENCE_S 20.0

static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

struct conn {
    int fd;
    unsigned char *out;   /* ARG frames, masked, back to back */
    size_t sent;          /* bytes of `out` that left */
    uint64_t next_seq;    /* of the next heartbeat to be written */
    uint64_t acked;       /* highest that came back */
    size_t in_len;
    unsigned char in[IN_BYTES];
};

static int frame_bytes, head_bytes, payload_bytes, marks, mark_at[MARKS_MAX];
static uint64_t acks, errors_heard;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what, int which) {
    fprintf(stderr, "wsload: %s (connection %d): %s\n", what, which, errno ? strerror(errno) : "no errno");
    exit(1);
}

static char *slurp(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(2); }
    char *text = calloc(1, 1 << 20);
    *size = fread(text, 1, (1 << 20) - 1, file);
    fclose(file);
    while (*size && (text[*size - 1] == '\n')) text[--*size] = 0;
    return text;
}

static int put_head(unsigned char *at, size_t size) {
    at[0] = 0x81;
    if (size < 126) { at[1] = 0x80 | size; memcpy(at + 2, MASK, 4); return 6; }
    at[1] = 0x80 | 126; at[2] = size >> 8; at[3] = size & 255;
    memcpy(at + 4, MASK, 4);
    return 8;
}

static void number(struct conn *c, int frames) {
    for (int k = 0; k < frames; k++) {
        unsigned char *payload = c->out + (size_t)k * frame_bytes + head_bytes;
        for (int m = 0; m < marks; m++) {
            uint64_t seq = c->next_seq++;
            for (int d = DIGITS - 1; d >= 0; d--, seq /= 10) {
                int at = mark_at[m] + d;
                payload[at] = (unsigned char)('0' + seq % 10) ^ MASK[at & 3];
            }
        }
    }
}

/* Read what is there; take whole server frames from it. Returns 0 when there was nothing. */
static int listen_to(struct conn *c, int which) {
    ssize_t got = recv(c->fd, c->in + c->in_len, IN_BYTES - c->in_len, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
    if (got <= 0) fail("the server closed", which);
    c->in_len += got;
    size_t at = 0;
    while (c->in_len - at >= 4) {
        size_t size = c->in[at + 1] & 127, head = 2;
        if (size == 126) { size = c->in[at + 2] << 8 | c->in[at + 3]; head = 4; }
        if (c->in_len - at < head + size) break;
        char text[2048];
        size_t shown = size < sizeof text - 1 ? size : sizeof text - 1;
        memcpy(text, c->in + at + head, shown);
        text[shown] = 0;
        if ((c->in[at] & 15) == 8) { fprintf(stderr, "close frame: %s\n", text + 2); errno = 0; fail("closed", which); }
        if (strstr(text, "\"type\":\"ack\"")) {
            char *seq = strstr(text, "\"seq\":");
            uint64_t value = seq ? strtoull(seq + 6, NULL, 10) : 0;
            errno = 0;
            if (value <= c->acked) fail("an acknowledgement did not rise", which);
            if (value >= c->next_seq) fail("an acknowledgement is ahead", which);
            c->acked = value;
            acks++;
        } else if (strstr(text, "\"type\":\"error\"")) {
            if (!errors_heard++) fprintf(stderr, "wsload: error message: %s\n", text);
        } else if (strstr(text, "\"type\":\"welcome\"")) {
            c->acked = FIRST_SEQ - 1;
        }
        at += head + size;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    return 1;
}

static int dial(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int one = 1;
    for (int tries = 0;; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (void *)&to, sizeof to) == 0) return fd;
        close(fd);
        if (tries > 100) fail("connect", 0);
        usleep(50000);
    }
}

static void shake_hands(struct conn *c, int which, const char *path, const char *token) {
    char text[2048];
    int size = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
        path, token ? "Authorization: Bearer " : "", token ? token : "", token ? "\r\n" : "");
    if (write(c->fd, text, size) != size) fail("handshake", which);
    int got = 0;
    while (got < 4 || memcmp(text + got - 4, "\r\n\r\n", 4)) {
        if (got == sizeof text - 1 || read(c->fd, text + got, 1) != 1) fail("handshake answer", which);
        got++;
    }
    text[got] = 0;
    if (!strstr(text, " 101 ")) { fprintf(stderr, "%s", text); errno = 0; fail("refused", which); }
}

static void say_hello(struct conn *c, int which, const char *hello, size_t size) {
    unsigned char frame[4096], text[4000];
    memcpy(text, hello, size);
    for (unsigned char *at; (at = memmem(text, size, "NNNNNN", 6));) {
        char digits[16];
        snprintf(digits, sizeof digits, "%06d", which);
        memcpy(at, digits, 6);
    }
    int head = put_head(frame, size);
    for (size_t j = 0; j < size; j++) frame[head + j] = text[j] ^ MASK[j & 3];
    if (write(c->fd, frame, head + size) != (ssize_t)(head + size)) fail("hello", which);
}

/* Push out what is left of the frames that were begun, so that the last one is whole. */
static void finish(struct conn *c, int which, size_t total) {
    double limit = now_s() + PATIENCE_S;
    while (c->sent && c->sent < total) {
        ssize_t put = send(c->fd, c->out + c->sent, total - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put > 0) c->sent += put;
        else if (errno != EAGAIN || now_s() > limit) fail("finish", which);
        else { struct pollfd p = {c->fd, POLLOUT, 0}; poll(&p, 1, 10); }
    }
    c->sent = 0;
}

int main(int argc, char **argv) {
    if (argc < 8) { fprintf(stderr, "wsload PORT PATH CONNS SECONDS MODE ARG PAYLOAD [HELLO CREDENTIALS]\n"); return 2; }
    int port = atoi(argv[1]), n = atoi(argv[3]);
    double seconds = atof(argv[4]), arg = atof(argv[6]);
    const char *path = argv[2], *mode = argv[5];
    int echo = !strcmp(mode, "echo"), flood = !strcmp(mode, "flood"), idle = !strcmp(mode, "idle");
    int frames = flood ? (int)arg : 1;
    size_t size, hello_size = 0, tokens_size;
    char *payload = slurp(argv[7], &size), *hello = NULL, *token = NULL;
    if (argc > 9) { hello = slurp(argv[8], &hello_size); token = strtok(slurp(argv[9], &tokens_size), "\n"); }
    payload_bytes = (int)size;
    head_bytes = size < 126 ? 6 : 8;
    frame_bytes = head_bytes + payload_bytes;
    for (char *at = payload; (at = memmem(at, payload + size - at, MARK, DIGITS)) && marks < MARKS_MAX; at += DIGITS)
        mark_at[marks++] = at - payload;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    struct conn *conns = calloc(n, sizeof *conns);
    for (int i = 0; i < n; i++) {
        struct conn *c = conns + i;
        c->fd = dial(port);
        c->next_seq = FIRST_SEQ;
        shake_hands(c, i, path, token);
        if (token && n > 1) token = strtok(NULL, "\n");
        if (hello) say_hello(c, i, hello, hello_size);
        c->out = malloc((size_t)frame_bytes * frames);
        for (int k = 0; k < frames; k++) {
            unsigned char *at = c->out + (size_t)k * frame_bytes;
            put_head(at, size);
            for (size_t j = 0; j < size; j++) at[head_bytes + j] = payload[j] ^ MASK[j & 3];
        }
    }
    if (hello)
        for (int i = 0; i < n; i++) {
            double limit = now_s() + PATIENCE_S;
            while (conns[i].acked != FIRST_SEQ - 1) {
                if (now_s() > limit) { errno = 0; fail("no welcome", i); }
                if (!listen_to(conns + i, i)) usleep(200);
            }
        }

    size_t total = (size_t)frame_bytes * frames;
    uint64_t done = 0;
    double began = now_s(), end = began + seconds, heard = began, last = began;
    if (idle) {
        while (now_s() < end) { for (int i = 0; i < n; i++) listen_to(conns + i, i); usleep(50000); }
    } else if (flood) {
        while (now_s() < end) {
            int moved = 0;
            for (int i = 0; i < n; i++) {
                struct conn *c = conns + i;
                if (!c->sent) number(c, frames);
                ssize_t put = send(c->fd, c->out + c->sent, total - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (put > 0) { c->sent += put; moved = 1; if (c->sent == total) c->sent = 0; }
                else {
                    if (errno != EAGAIN) fail("send", i);
                    if (!c->sent) c->next_seq -= (uint64_t)frames * marks;
                }
            }
            if (now_s() - heard > 0.05) { heard = now_s(); for (int i = 0; i < n; i++) listen_to(conns + i, i); }
            if (!moved) usleep(100);
        }
    } else if (echo) {
        int poller = epoll_create1(0);
        struct epoll_event events[256];
        static unsigned char answer[1 << 17];
        size_t expected = (size < 126 ? 2 : 4) + size;
        for (int i = 0; i < n; i++) {
            struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
            epoll_ctl(poller, EPOLL_CTL_ADD, conns[i].fd, &e);
            number(conns + i, 1);
            if (send(conns[i].fd, conns[i].out, total, MSG_NOSIGNAL) != (ssize_t)total) fail("send", i);
        }
        while (now_s() < end) {
            int ready = epoll_wait(poller, events, 256, 100);
            for (int j = 0; j < ready; j++) {
                int i = events[j].data.u32;
                ssize_t got = recv(conns[i].fd, answer, sizeof answer, 0);
                if (got <= 0) fail("the server closed", i);
                conns[i].in_len += got;
                if (conns[i].in_len >= expected) {
                    conns[i].in_len -= expected;
                    done++;
                    number(conns + i, 1);
                    if (send(conns[i].fd, conns[i].out, total, MSG_NOSIGNAL) != (ssize_t)total) fail("send", i);
                }
            }
        }
    } else {
        uint64_t put = 0;
        while (now_s() < end) {
            uint64_t due = (uint64_t)((now_s() - began) * arg);
            for (; put < due; put++) {
                int i = put % n;
                number(conns + i, 1);
                conns[i].sent = 1;
                ssize_t out = send(conns[i].fd, conns[i].out, total, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (out < 0 && errno != EAGAIN) fail("send", i);
                conns[i].sent = out > 0 ? out : 0;
                if (conns[i].sent < total) {
                    if (!conns[i].sent) { conns[i].next_seq -= marks; break; }
                    finish(conns + i, i, total);
                }
                conns[i].sent = 0;
            }
            if (now_s() - heard > 0.05) { heard = now_s(); for (int i = 0; i < n; i++) listen_to(conns + i, i); }
            usleep(50);
        }
    }
    uint64_t heartbeats = 0, unacked = 0;
    if (!echo && !idle) {
        for (int i = 0; i < n; i++) { finish(conns + i, i, total); heartbeats += conns[i].next_seq - FIRST_SEQ; }
        double limit = now_s() + PATIENCE_S;
        if (hello) {
            do {
                unacked = 0;
                for (int i = 0; i < n; i++) {
                    if (conns[i].acked + 1 < conns[i].next_seq) listen_to(conns + i, i);
                    unacked += conns[i].next_seq - 1 - conns[i].acked;
                }
                last = now_s();
                if (unacked) usleep(1000);
            } while (unacked && last < limit);
        }
        done = heartbeats / (marks ? marks : 1);
    }
    double took = (hello && !idle ? last : now_s()) - began;
    printf("{\"mode\":\"%s\",\"connections\":%d,\"payload_bytes\":%d,\"frames\":%llu,\"heartbeats\":%llu,\"unacked\":%llu,"
           "\"acks\":%llu,\"errors\":%llu,\"seconds\":%.4f,\"frames_per_s\":%.0f,\"heartbeats_per_s\":%.0f}\n",
           mode, n, payload_bytes, (unsigned long long)done, (unsigned long long)heartbeats, (unsigned long long)unacked,
           (unsigned long long)acks, (unsigned long long)errors_heard, took, done / took, heartbeats / took);
    return unacked != 0;
}
