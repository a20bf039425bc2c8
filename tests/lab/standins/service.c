/*
 * Copyright: Contributors to the observability.stack collection
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A STAND-IN for Loki, Promtail, Grafana, the PHP-FPM exporter or the fail2ban exporter, whose programs Debian hasn't.
 * It does nothing of what they are for. It speaks their flags, exit codes, version texts and endpoints, and no more:
 *
 *   loki               keeps what is pushed in a file below path_prefix, and gives it back; /ready is 503 for 2 seconds
 *   promtail           pushes a line a second to the URL in its configuration, and counts in its positions file
 *   grafana            says of its database that it is well, and of its data sources to whom logs in as admin
 *   php-fpm_exporter   where its port is taken, says so and runs on, as the real one does
 *   fail2ban_exporter  takes any file at the socket's path for fail2ban's socket
 *
 *   NAME     which of them
 *   VERSION  what it says that its version is
 *   REFUSES  a word; a configuration with it is refused ("": none)
 *   LACKS    a flag that this version has no more ("": none)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define GRAFANA_FLAGS " config homepath packaging pidfile version v "
#define LOKI_FLAGS                                                                                                     \
    " config.file config.expand-env verify-config version log.level server.http-listen-port target "                   \
    "ingester.max-transfer-retries boltdb.shipper.compactor.shared-store print-config-stderr help h "
#define PROMTAIL_FLAGS                                                                                                 \
    " config.file config.expand-env check-syntax dry-run version log.level server.http-listen-port help h "
#define PHPFPM_FLAGS " web.listen-address web.telemetry-path phpfpm.scrape-uri phpfpm.fix-process-count log.level help h "
#define FAIL2BAN_FLAGS                                                                                                 \
    " collector.f2b.socket collector.f2b.exit-on-socket-connection-error collector.textfile.directory dry-run "        \
    "web.listen-address web.basic-auth.username web.basic-auth.password version v help h "

static const struct kind {
    const char *name, *config_flag, *listen_flag, *port_key, *unknown;
    int port;
    const char *flags;
} kinds[] = {
    {"loki", "config.file", "server.http-listen-port", "http_listen_port", "flag provided but not defined: -%s\n", 3100,
     LOKI_FLAGS},
    {"promtail", "config.file", "server.http-listen-port", "http_listen_port", "flag provided but not defined: -%s\n",
     80, PROMTAIL_FLAGS},
    {"grafana", "config", "", "http_port", "flag provided but not defined: -%s\n", 3000, GRAFANA_FLAGS},
    {"php-fpm_exporter", "", "web.listen-address", "", "Error: unknown flag: --%s\n", 9253, PHPFPM_FLAGS},
    {"fail2ban_exporter", "", "web.listen-address", "", "fail2ban_exporter: error: unknown flag --%s\n", 9191,
     FAIL2BAN_FLAGS},
};
static const struct kind *kind;
static char config[65536], request[262144], answer[524288], data_path[512];
static long ticks, sent, failed;
static time_t started;

static int is(const char *name) { return !strcmp(NAME, name); }

/* -- arguments and configuration -- */

static const char *flag(int argc, char **argv, const char *name)
{
    size_t length = strlen(name);
    for (int i = 1; length && i < argc; i++) {
        const char *word = argv[i];
        if (*word != '-')
            continue;
        word += strspn(word, "-");
        if (!strncmp(word, name, length) && word[length] == '=')
            return word + length + 1;
        if (!strcmp(word, name))
            return i + 1 < argc && argv[i + 1][0] != '-' ? argv[i + 1] : "";
    }
    return NULL;
}

static int has_word(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], word))
            return 1;
    return 0;
}

static void check_flags(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char name[128], known[130];
        if (argv[i][0] != '-')
            continue;
        snprintf(name, sizeof name, "%s", argv[i] + strspn(argv[i], "-"));
        name[strcspn(name, "=")] = 0;
        snprintf(known, sizeof known, " %s ", name);
        if (!strstr(kind->flags, known) || !strcmp(name, LACKS)) {
            fprintf(stderr, kind->unknown, name);
            exit(1);
        }
    }
}

/* What stands behind a key, in YAML or INI, wherever it is. */
static const char *setting(const char *key, const char *otherwise)
{
    static char values[8][512];
    static int used;
    char *value = values[used++ % 8];
    for (const char *at = config; (at = strstr(at, key)); at++) {
        const char *end = at + strlen(key);
        if (at > config && !strchr(" \n\t-{\"", at[-1]))
            continue;
        end += strspn(end, "\" \t");
        if (*end != ':' && *end != '=')
            continue;
        end++;
        end += strspn(end, " \t\"'");
        snprintf(value, 512, "%.*s", (int)strcspn(end, " \t\r\n\"',}#"), end);
        return value;
    }
    return otherwise;
}

static void refuse(const char *path, const char *why)
{
    if (is("promtail"))
        fprintf(stderr, "Unable to parse config: %s: yaml: unmarshal errors:\n  %s\n", path, why);
    else
        fprintf(stderr, "failed parsing config: %s: yaml: unmarshal errors:\n  %s\n", path, why);
    exit(1);
}

static void read_config(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "failed parsing config: open %s: %s\n", path, strerror(errno));
        exit(1);
    }
    config[fread(config, 1, sizeof config - 1, file)] = 0;
    fclose(file);
    if (*REFUSES && strstr(config, REFUSES))
        refuse(path, "line 1: field " REFUSES " not found in type standin.Config");
    if (is("loki") && atoi(VERSION) >= 3 && strcmp(setting("schema", "v13"), "v13") &&
        strcmp(setting("allow_structured_metadata", "true"), "false")) {
        fprintf(stderr,
                "level=error caller=main.go msg=\"validating config\" err=\"CONFIG ERROR: schema v13 is required to "
                "store Structured Metadata and use native OTLP ingestion, your schema version is %s. Set "
                "`allow_structured_metadata: false` in the `limits_config` section\"\n",
                setting("schema", ""));
        exit(1);
    }
}

static void tell_version(int argc, char **argv)
{
    int asked = flag(argc, argv, "version") || flag(argc, argv, "v") || has_word(argc, argv, "version");
    if (is("php-fpm_exporter") ? !has_word(argc, argv, "version") : !asked)
        return;
    if (is("php-fpm_exporter"))
        printf("php-fpm_exporter " VERSION ", commit stand-in, built at 1970-01-01T00:00:00Z\n");
    else if (is("fail2ban_exporter"))
        printf(VERSION "\n    build date: 1970-01-01T00:00:00Z\r\n    commit hash: stand-in\r\n");
    else if (is("grafana") && has_word(argc, argv, "server"))
        printf("Version " VERSION " (commit: stand-in, branch: HEAD)\n");
    else if (is("grafana"))
        printf("grafana version " VERSION "\n");
    else
        printf(NAME ", version " VERSION " (branch: HEAD, revision: stand-in)\n");
    exit(0);
}

/* What a configuration check says, if one is asked for. A bad configuration was refused when it was read. */
static void check_only(int argc, char **argv)
{
    if (is("loki") && flag(argc, argv, "verify-config")) {
        fprintf(stderr, "level=info msg=\"config is valid\"\n");
        exit(0);
    }
    if (is("promtail") && flag(argc, argv, "check-syntax")) {
        printf("Valid config file! No syntax issues found\n");
        exit(0);
    }
    if (is("fail2ban_exporter") && flag(argc, argv, "dry-run")) {
        fprintf(stderr, access(data_path, F_OK) ? "error connecting to socket %s\n" : "connected to %s\n", data_path);
        exit(access(data_path, F_OK) ? 1 : 0);
    }
}

static void print_help(int argc, char **argv)
{
    if (!flag(argc, argv, "help") && !flag(argc, argv, "h"))
        return;
    printf("Usage of " NAME ":\n");
    for (const char *at = kind->flags + 1; *at; at += strcspn(at, " ") + 1)
        if (strncmp(at, LACKS " ", sizeof LACKS))
            printf("  -%.*s\n", (int)strcspn(at, " "), at);
    exit(0);
}

/* -- what the endpoints say -- */

static void say(const char *format, ...)
{
    va_list arguments;
    size_t length = strlen(answer);
    va_start(arguments, format);
    vsnprintf(answer + length, sizeof answer - length, format, arguments);
    va_end(arguments);
}

static int metrics(void)
{
    const char *prefix = is("php-fpm_exporter") ? "phpfpm" : is("fail2ban_exporter") ? "f2b" : NAME;
    if (is("fail2ban_exporter"))
        say("f2b_version{exporter=\"" VERSION "\",fail2ban=\"1.0.2\"} 1\nf2b_up %d\nf2b_jail_count 1\n"
            "f2b_jail_banned_current{jail=\"sshd\"} 0\n",
            !access(data_path, F_OK));
    else if (is("php-fpm_exporter"))
        say("phpfpm_up{pool=\"www\",scrape_uri=\"tcp://127.0.0.1:9000/status\"} 1\nphpfpm_active_processes{pool=\"www\"} "
            "1\n");
    else
        say("%s_build_info{branch=\"HEAD\",goversion=\"none\",revision=\"stand-in\",version=\"" VERSION "\"} 1\n", prefix);
    if (is("loki"))
        say("loki_distributor_lines_received_total %ld\n", sent);
    if (is("promtail"))
        say("promtail_sent_entries_total %ld\npromtail_dropped_entries_total 0\npromtail_targets_active_total "
            "1\npromtail_request_duration_seconds_count{status_code=\"204\"} %ld\n"
            "promtail_request_duration_seconds_count{status_code=\"-1\"} %ld\n",
            sent, sent, failed);
    say("process_start_time_seconds %ld\n", (long)started);
    for (int i = 0; i < 40; i++)
        say("%s_standin_samples{number=\"%d\"} %d\n", prefix, i, i);
    return 200;
}

static void decode(char *text)
{
    char *to = text;
    for (char *from = text; *from; from++) {
        char hex[3] = {0};
        if (*from == '%' && from[1] && from[2]) {
            memcpy(hex, from + 1, 2);
            *to++ = (char)strtol(hex, NULL, 16);
            from += 2;
        } else {
            *to++ = *from == '+' ? ' ' : *from;
        }
    }
    *to = 0;
}

/* Whether a pushed line has all the labels of a selector like {job="x",host="y"}, and the text behind |=. */
static int matches(const char *pushed, const char *query)
{
    const char *start = strchr(query, '{'), *end = strchr(query, '}'), *text = strstr(query, "|=");
    for (const char *at = start; at && at < end;) {
        char name[128], value[256], spaced[512], plain[512];
        int length = 0;
        at += strspn(at, "{, ");
        if (sscanf(at, "%127[a-zA-Z0-9_]%*[ ]=\"%255[^\"]\"%n", name, value, &length) != 2 &&
            sscanf(at, "%127[a-zA-Z0-9_]=\"%255[^\"]\"%n", name, value, &length) != 2)
            break;
        snprintf(plain, sizeof plain, "\"%s\":\"%s\"", name, value);
        snprintf(spaced, sizeof spaced, "\"%s\": \"%s\"", name, value);
        if (!strstr(pushed, plain) && !strstr(pushed, spaced))
            return 0;
        at += length;
    }
    if (text && (text = strpbrk(text, "\"`"))) {
        char wanted[256];
        snprintf(wanted, sizeof wanted, "%.*s", (int)strcspn(text + 1, "\"`"), text + 1);
        return !*wanted || strstr(pushed, wanted) != NULL;
    }
    return 1;
}

static int push(char *body)
{
    char path[600], *first = strchr(body, '['), *last = strrchr(body, ']');
    FILE *file;
    if (!strstr(body, "\"streams\"") || !first || last <= first) {
        say("loki: stand-in takes JSON with streams only\n");
        return 400;
    }
    snprintf(path, sizeof path, "%s/pushed", data_path);
    if (!(file = fopen(path, "a"))) {
        say("%s: %s\n", path, strerror(errno));
        return 500;
    }
    for (char *at = first + 1; at < last; at++)
        fputc(*at == '\n' || *at == '\r' ? ' ' : *at, file);
    fputc('\n', file);
    fclose(file);
    sent++;
    return 204;
}

/* Whether it is admin who asks, with the password not-a-secret. */
static int is_admin(void)
{
    const char *end = strstr(request, "\r\n\r\n"), *login = strstr(request, "Basic YWRtaW46bm90LWEtc2VjcmV0\r\n");
    return login && end && login < end;
}

static int query(char *url)
{
    static char line[sizeof request];
    char path[600], *wanted = strstr(url, "query="), *end;
    const char *comma = "";
    FILE *file;
    if (!wanted) {
        say("parse error : syntax error: unexpected $end\n");
        return 400;
    }
    wanted += 6;
    if ((end = strchr(wanted, '&')))
        *end = 0;
    decode(wanted);
    snprintf(path, sizeof path, "%s/pushed", data_path);
    say("{\"status\":\"success\",\"data\":{\"resultType\":\"streams\",\"result\":[");
    if ((file = fopen(path, "r"))) {
        if (!fseek(file, -200000, SEEK_END) && fgets(line, sizeof line, file)) {
        }
        while (fgets(line, sizeof line, file)) {
            line[strcspn(line, "\n")] = 0;
            if (matches(line, wanted)) {
                say("%s%s", comma, line);
                comma = ",";
            }
        }
        fclose(file);
    }
    say("],\"stats\":{}}}");
    return 200;
}

static int text(int status, const char *said)
{
    say("%s", said);
    return status;
}

/* The status of an answer, whose body is in C(answer) then. */
static int respond(char *url, char *body)
{
    char path[256];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(url, "?"), url);
    if (!strcmp(path, "/metrics"))
        return metrics();
    if (is("loki") && !strcmp(path, "/ready"))
        return time(NULL) - started < 2 ? text(503, "Ingester not ready: waiting for 15s after being ready\n")
                                        : text(200, "ready\n");
    if (is("promtail") && !strcmp(path, "/ready"))
        return strstr(config, "__path__")
                   ? text(200, "Ready\n")
                   : text(503, "Not ready: Unable to find any logs to tail. Please verify permissions, volumes, "
                               "scrape_config, etc.\n");
    if (is("loki") && !strcmp(path, "/loki/api/v1/push"))
        return push(body);
    if (is("loki") && (!strcmp(path, "/loki/api/v1/query_range") || !strcmp(path, "/loki/api/v1/query")))
        return query(url);
    if (is("loki") && !strcmp(path, "/loki/api/v1/labels"))
        return text(200, "{\"status\":\"success\",\"data\":[\"host\",\"job\"]}");
    if (is("loki") && !strcmp(path, "/loki/api/v1/status/buildinfo"))
        return text(200, "{\"version\":\"" VERSION "\",\"revision\":\"stand-in\",\"branch\":\"HEAD\"}");
    if (is("grafana") && !strcmp(path, "/api/health"))
        return text(200, "{\"commit\":\"stand-in\",\"database\":\"ok\",\"version\":\"" VERSION "\"}");
    if (is("grafana") && !strcmp(path, "/healthz"))
        return text(200, "Ok");
    if (is("grafana") && !strncmp(path, "/api/datasources", 16) && !is_admin())
        return text(401, "{\"message\":\"Invalid username or password\",\"messageId\":\"password-auth.failed\"}");
    if (is("grafana") && !strcmp(path, "/api/datasources"))
        return text(200, "[{\"id\":1,\"uid\":\"prometheus\",\"name\":\"Prometheus\",\"type\":\"prometheus\"},"
                         "{\"id\":2,\"uid\":\"loki\",\"name\":\"Loki\",\"type\":\"loki\"}]");
    if (is("grafana") && !strncmp(path, "/api/datasources/uid/", 21) && strstr(path, "/health"))
        return text(200, "{\"message\":\"Data source is working\",\"status\":\"OK\"}");
    if (is("fail2ban_exporter") && !strcmp(path, "/health") && strncmp(VERSION, "0.9.", 4))
        return text(200, "OK");
    return text(404, "404 page not found\n");
}

/* -- the network -- */

static void answer_client(int client)
{
    char head[256], method[16], url[4096];
    struct timeval patience = {.tv_sec = 2};
    size_t got = 0, wanted = 0;
    char *body = NULL;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (got < sizeof request - 1) {
        ssize_t part = read(client, request + got, sizeof request - 1 - got);
        if (part <= 0)
            return;
        request[got += part] = 0;
        if (!body && (body = strstr(request, "\r\n\r\n"))) {
            body += 4;
            for (char *line = request; line && line < body; line = strstr(line, "\r\n") ? strstr(line, "\r\n") + 2 : NULL)
                if (!strncasecmp(line, "content-length:", 15))
                    wanted = strtoul(line + 15, NULL, 10);
        }
        if (body && got >= (size_t)(body - request) + wanted)
            break;
    }
    if (!body || sscanf(request, "%15s %4095s", method, url) != 2)
        return;
    answer[0] = 0;
    int status = respond(url, body);
    const char *type = answer[0] == '{' || answer[0] == '[' ? "application/json" : "text/plain; version=0.0.4";
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
                          status, status < 300 ? "OK" : "Not so", type, (int)strlen(answer));
    if (write(client, head, length) < 0 || write(client, answer, strlen(answer)) < 0) {
    }
}

static int connected(const char *url, char *host, size_t size)
{
    char number[64] = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = 1};
    int port = 80, there = -1;
    if (sscanf(url, "http://%63[^:/]:%d", number, &port) < 1)
        return -1;
    snprintf(host, size, "%s:%d", number, port);
    inet_pton(AF_INET, strcmp(number, "localhost") ? number : "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(port);
    there = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(there, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(there, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(there, (struct sockaddr *)&address, sizeof address)) {
        close(there);
        return -1;
    }
    return there;
}

/* Promtail's work: one line to Loki, and the count of them into the positions file. */
static void ship(void)
{
    const char *url = setting("url", ""), *positions = setting("filename", "");
    char host[80], name[64] = "", body[512], message[1024], reply[32] = "";
    int there = connected(url, host, sizeof host);
    FILE *file;
    ticks++;
    gethostname(name, sizeof name - 1);
    snprintf(body, sizeof body,
             "{\"streams\":[{\"stream\":{\"job\":\"promtail\",\"host\":\"%s\"},\"values\":[[\"%ld000000000\","
             "\"stand-in line %ld\"]]}]}",
             name, (long)time(NULL), ticks);
    snprintf(message, sizeof message,
             "POST /loki/api/v1/push HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: "
             "%d\r\nConnection: close\r\n\r\n%s",
             host, (int)strlen(body), body);
    if (there >= 0 && write(there, message, strlen(message)) > 0 && read(there, reply, sizeof reply - 1) > 0 &&
        strstr(reply, " 204 "))
        sent++;
    else
        failed++;
    if (there >= 0)
        close(there);
    if (*positions && (file = fopen(positions, "w"))) {
        fprintf(file, "positions:\n  /var/log/stand-in.log: \"%ld\"\n", sent);
        fclose(file);
    }
}

static int listening(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 16)) {
        fprintf(stderr, "level=error msg=\"listen tcp :%d: bind: %s\"\n", port, strerror(errno));
        if (!is("php-fpm_exporter"))
            exit(1);
        for (;;)
            pause();
    }
    return server;
}

int main(int argc, char **argv)
{
    const char *given;
    for (kind = kinds; strcmp(kind->name, NAME); kind++)
        ;
    check_flags(argc, argv);
    if ((given = flag(argc, argv, kind->config_flag)))
        read_config(given);
    tell_version(argc, argv);
    print_help(argc, argv);
    given = is("fail2ban_exporter") ? flag(argc, argv, "collector.f2b.socket") : setting("path_prefix", "/tmp");
    snprintf(data_path, sizeof data_path, "%s", given ? given : "/var/run/fail2ban/fail2ban.sock");
    check_only(argc, argv);
    if ((is("php-fpm_exporter") || is("grafana")) && !has_word(argc, argv, "server")) {
        printf("Usage:\n  " NAME " [command]\n");
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    started = time(NULL);
    given = flag(argc, argv, kind->listen_flag);
    if (given && strrchr(given, ':'))
        given = strrchr(given, ':') + 1;
    int port = atoi(given ? given : *kind->port_key ? setting(kind->port_key, "0") : "0");
    int server = listening(port ? port : kind->port);
    for (time_t shipped = started;;) {
        struct pollfd ready = {.fd = server, .events = POLLIN};
        if (poll(&ready, 1, 250) > 0) {
            int client = accept(server, NULL, NULL);
            if (client >= 0) {
                answer_client(client);
                close(client);
            }
        }
        if (is("promtail") && time(NULL) != shipped) {
            shipped = time(NULL);
            ship();
        }
    }
}
