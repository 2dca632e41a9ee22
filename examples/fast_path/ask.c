/* Asks a model of one FP32 input [1, N] and one FP32 output over the fast path. docs/inference.md tells the wire.
 *
 * usage: ask SOCKET NUMBER...
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 65536, MESSAGE = 65536 };

struct __attribute__((packed)) request {
    char kind;
    uint8_t priority;
    uint16_t layout;
    uint32_t zero;
    uint64_t number;
    uint64_t timeout_us;
};

struct __attribute__((packed)) answer {
    char kind;
    uint8_t zero;
    uint16_t status;
    uint32_t more;
    uint64_t number;
};

static char message[MESSAGE + 1];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static ssize_t receive(int connection)
{
    ssize_t count = recv(connection, message, MESSAGE, 0);
    if (count <= 0 || message[0] == 'G') {
        fprintf(stderr, "the worker went away: connect and ask again\n");
        exit(1);
    }
    message[count] = 0;
    return count;
}

/* Sends a control message, with the memory's descriptor where there is one, and looks at the answer. */
static void control(int connection, const char *json, int memory)
{
    char ancillary[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec piece = {(void *)json, strlen(json)};
    struct msghdr packet = {.msg_iov = &piece, .msg_iovlen = 1};
    if (memory >= 0) {
        packet.msg_control = ancillary;
        packet.msg_controllen = sizeof ancillary;
        struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &memory, sizeof memory);
    }
    if (sendmsg(connection, &packet, 0) < 0)
        fail("sendmsg");
    receive(connection);
    if (strncmp(message, "J{\"error\"", 9) == 0) {
        fprintf(stderr, "%s\n", message + 1);
        exit(1);
    }
}

int main(int count, char **arguments)
{
    if (count < 3) {
        fprintf(stderr, "usage: %s SOCKET NUMBER...\n", arguments[0]);
        return 2;
    }
    int elements = count - 2;
    size_t inputs = (elements * sizeof(float) + 63) / 64 * 64, size = inputs + ROOM;

    int connection = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    control(connection, "J{\"op\": \"hello\", \"version\": 1}", -1);

    int memory = memfd_create("ask", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0 || ftruncate(memory, size) < 0 || fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
        fail("memfd_create");
    char *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (place == MAP_FAILED)
        fail("mmap");
    char layout[512];
    snprintf(layout, sizeof layout,
             "J{\"op\": \"layout\", \"layout\": 1, \"bytes\": %zu, \"inputs\": [{\"offset\": 0, \"shape\": [1, %d]}], "
             "\"outputs\": {\"offset\": %zu, \"bytes\": %d}}",
             size, elements, inputs, ROOM);
    control(connection, layout, memory);

    for (int at = 0; at < elements; at++)
        ((float *)place)[at] = strtof(arguments[at + 2], NULL);
    struct request request = {.kind = 'R', .priority = 1, .layout = 1, .number = 7, .timeout_us = 5000000};
    if (send(connection, &request, sizeof request, 0) < 0)
        fail("send");

    ssize_t length = receive(connection);
    struct answer answer;
    memcpy(&answer, message, sizeof answer);
    if (answer.kind != 'A' || answer.number != 7 || answer.status != 200) {
        fprintf(stderr, "%d: %s\n", answer.status, message + sizeof answer);
        return 1;
    }
    if (length <= (ssize_t)sizeof answer)
        return 1; /* the first answer of a layout has the shapes */
    size_t outputs = 1;
    uint8_t *shape = (uint8_t *)message + sizeof answer;
    for (int at = 0; at < shape[0]; at++) {
        uint32_t dimension;
        memcpy(&dimension, shape + 1 + 4 * at, sizeof dimension);
        outputs *= dimension;
    }
    for (size_t at = 0; at < outputs; at++)
        printf("%g\n", ((float *)(place + inputs))[at]);
    return 0;
}
