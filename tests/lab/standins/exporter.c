/*
 * Copyright: Contributors to the observability.stack collection
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A STAND-IN, not a real exporter: a release that is bad in one way, which no real release is when a test needs it.
 *
 *   NAME     what it calls itself, e.g. "node_exporter"
 *   VERSION  what --version says
 *   SERVES   the version that its build_info metric tells
 *   METRICS  what it exports besides: what the real one exports, all of it or a part
 *   LIVES    seconds until it dies; 0: it dies at start; -1: never
 *   LISTENS  0: it runs, and never opens its port
 *   TAKEN    1: when it wants its port, another process has just taken it
 *   LACKS    a flag that it doesn't know ("": it takes all)
 *   CANARY   1: it first makes an empty file /canary/<uid> that tells who runs it, where there is such a directory
 *   DRIPS    1: it answers with a header that never ends, a byte at a time, and ignores SIGTERM
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(int signal)
{
    static const char last[] = "level=error msg=\"stand-in: lost its will to live\"\n";
    (void)signal;
    if (write(2, last, sizeof last - 1)) {
    }
    _exit(3);
}

static void sing(void)
{
    char path[64];
    snprintf(path, sizeof path, "/canary/%d", geteuid());
    close(open(path, O_WRONLY | O_CREAT, 0644));
}

static int listen_port(int argc, char **argv)
{
    static const char flag[] = "--web.listen-address=";
    int port = 9100;
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], flag, sizeof flag - 1) && strrchr(argv[i], ':'))
            port = atoi(strrchr(argv[i], ':') + 1);
    return port;
}

/* What a kingpin program says of a flag that it doesn't know, before it says anything else. */
static void check_flags(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (*LACKS && !strncmp(argv[i], "--" LACKS, sizeof LACKS + 1)) {
            fprintf(stderr, NAME ": error: unknown long flag '--" LACKS "', try --help\n");
            exit(1);
        }
}

static int opened(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 16)) {
        fprintf(stderr, "level=error err=\"listen tcp :%d: bind: %s\"\n", port, strerror(errno));
        exit(1);
    }
    return server;
}

static void write_all(int client, const char *text, int length)
{
    for (int part; length > 0; text += part, length -= part)
        if ((part = write(client, text, length)) <= 0)
            return;
}

static void drip(int client)
{
    static const char begun[] = "HTTP/1.1 200 OK\r\nX-Drip: ";
    if (fork())
        return;
    write_all(client, begun, sizeof begun - 1);
    while (write(client, "x", 1) == 1)
        usleep(200000);
    _exit(0);
}

static void serve(int server)
{
    static const char body[] =
        "# TYPE " NAME "_build_info gauge\n" NAME "_build_info{version=\"" SERVES "\"} 1\n" METRICS;
    for (;;) {
        char buffer[4096];
        int client = accept(server, NULL, NULL);
        if (client < 0)
            continue;
        if (DRIPS) {
            drip(client);
            close(client);
            continue;
        }
        if (read(client, buffer, sizeof buffer) > 0) {
            int length = snprintf(buffer, sizeof buffer,
                                  "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
                                  "Content-Length: %d\r\nConnection: close\r\n\r\n",
                                  (int)strlen(body));
            write_all(client, buffer, length);
            write_all(client, body, (int)strlen(body));
        }
        close(client);
    }
}

int main(int argc, char **argv)
{
    int server;
    if (CANARY)
        sing();
    check_flags(argc, argv);
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--version") || !strcmp(argv[i], "-version")) {
            printf(NAME ", version " VERSION " (branch: HEAD, revision: stand-in)\n");
            return 0;
        }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    if (DRIPS)
        signal(SIGTERM, SIG_IGN);
    if (LIVES == 0) {
        fprintf(stderr, "level=error msg=\"stand-in: this release can't start\"\n");
        return 1;
    }
    if (LIVES > 0) {
        signal(SIGALRM, die);
        alarm(LIVES);
    }
    if (!LISTENS)
        for (;;)
            pause();
    server = opened(listen_port(argc, argv));
    if (TAKEN && fork())
        opened(listen_port(argc, argv));
    if (TAKEN)
        for (;;)
            pause();
    serve(server);
}
