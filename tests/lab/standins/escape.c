/*
 * Copyright: Contributors to the observability.stack collection
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A STAND-IN for a hostile release: it tries to get out of the sandbox whenever it runs, and says what worked.
 *
 *   NAME     what it calls itself, e.g. "node_exporter"
 *   VERSION  what --version says, as long as nothing worked; otherwise it says 6.6.6
 *
 * With other arguments than --version alone it ends with status 1, so that what it says becomes a finding's evidence.
 * Each attempt is harmless where it works: signals are signal 0, and what is written is a file "observability-escape";
 * clock and name of the host are set to what they are.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARK "observability-escape"
#define STATE "/var/lib/observability-upgrades"

static int worked;

static void attempt(const char *what, int success)
{
    printf("%s: %s\n", success ? "escaped" : "held", what);
    worked += success;
}

static int writes(const char *directory)
{
    char path[256];
    int file;
    snprintf(path, sizeof path, "%s/" MARK, directory);
    file = open(path, O_WRONLY | O_CREAT, 0644);
    if (file >= 0)
        close(file);
    return file >= 0;
}

static int writes_somewhere(void)
{
    static const char *places[] = {"/", "/etc", "/usr/local/bin", "/var/lib", "/var/lib/node_exporter", "/var/log", "/run",
                                   "/run/lock", "/opt", "/home", "/root", "/srv", "/dev", "/sys/fs/cgroup", STATE};
    int any = 0;
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        if (writes(places[i])) {
            fprintf(stderr, "wrote to %s\n", places[i]);
            any = 1;
        }
    return any;
}

static int opens(const char *path, int how)
{
    int file = open(path, how | O_NONBLOCK);
    if (file >= 0)
        close(file);
    return file >= 0;
}

static int lists(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    int found = 0;
    while (directory && (entry = readdir(directory)))
        found += *entry->d_name != '.' || strlen(entry->d_name) > 2;
    if (directory)
        closedir(directory);
    return found;
}

/* Whether something works with any process but its own. Those that were there before it have smaller numbers. */
static int with_others(int (*deed)(int pid))
{
    for (int pid = 1; pid < getpid() + 10; pid++)
        if (pid != getpid() && pid != getppid() && deed(pid))
            return 1;
    return 0;
}

static int sends(int pid)
{
    siginfo_t info = {.si_code = SI_QUEUE};
    int file, sent;
    if (!kill(pid, 0) || !syscall(SYS_tgkill, pid, pid, 0) || !syscall(SYS_tkill, pid, 0))
        return 1;
    if (!syscall(SYS_rt_sigqueueinfo, pid, 0, &info))
        return 1;
    file = syscall(SYS_pidfd_open, pid, 0);
    if (file < 0)
        return 0;
    sent = !syscall(SYS_pidfd_send_signal, file, 0, NULL, 0);
    close(file);
    return sent;
}

static int traces(int pid)
{
    if (ptrace(PTRACE_ATTACH, pid, NULL, NULL))
        return 0;
    waitpid(pid, NULL, __WALL);
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return 1;
}

static int looks_into(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    if (opens(path, O_RDWR))
        return 1;
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    if (opens(path, O_RDONLY))
        return 1;
    snprintf(path, sizeof path, "/proc/%d/root/etc", pid);
    return lists(path);
}

static int enters(int pid)
{
    static const char *names[] = {"mnt", "net", "pid", "user"};
    char path[64];
    for (unsigned i = 0; i < 4; i++) {
        int file;
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, names[i]);
        file = open(path, O_RDONLY);
        if (file >= 0 && !setns(file, 0))
            return 1;
        if (file >= 0)
            close(file);
    }
    return 0;
}

static int talks(const char *path, int kind)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int file = socket(AF_UNIX, kind, 0), connected;
    if (file < 0)
        return 0;
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    connected = !connect(file, (struct sockaddr *)&address, sizeof address);
    close(file);
    return connected;
}

static int reaches(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int file = socket(AF_INET, SOCK_STREAM, 0), connected;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected = file >= 0 && !connect(file, (struct sockaddr *)&address, sizeof address);
    close(file);
    return connected;
}

static int makes_setuid(void)
{
    int file = open("/tmp/" MARK, O_WRONLY | O_CREAT, 0755);
    int made = file >= 0 && !fchmod(file, 04755);
    close(file);
    return made;
}

static int opens_by_handle(void)
{
    struct {
        unsigned bytes;
        int type;
        unsigned char handle[128];
    } handle = {.bytes = 128};
    int mount_id, root = open("/", O_RDONLY), file;
    if (syscall(SYS_name_to_handle_at, AT_FDCWD, "/etc/passwd", &handle, &mount_id, 0))
        return 0;
    file = syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY);
    return file >= 0;
}

static void try_all(void)
{
    struct timespec now;
    char name[65] = "";
    clock_gettime(CLOCK_REALTIME, &now);
    gethostname(name, sizeof name - 1);
    attempt("write outside", writes_somewhere());
    attempt("write to the kernel",
            opens("/proc/sys/kernel/core_pattern", O_WRONLY) || opens("/proc/sysrq-trigger", O_WRONLY) ||
                opens("/sys/kernel/uevent_helper", O_WRONLY));
    attempt("mount", !mount("none", "/tmp", "tmpfs", 0, "") || !mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    attempt("unmount", !umount2("/etc", MNT_DETACH) || !umount2("/run/systemd", MNT_DETACH) ||
                           !umount2(STATE, MNT_DETACH) || !umount2("/root", MNT_DETACH));
    attempt("enter namespaces", with_others(enters));
    attempt("trace", with_others(traces));
    attempt("look into processes", with_others(looks_into));
    attempt("signal", with_others(sends));
    attempt("talk to systemd", talks("/run/systemd/private", SOCK_STREAM) || talks("/run/systemd/notify", SOCK_DGRAM) ||
                                   talks("/run/systemd/journal/socket", SOCK_DGRAM));
    attempt("talk over D-Bus", talks("/run/dbus/system_bus_socket", SOCK_STREAM) ||
                                   talks("/var/run/dbus/system_bus_socket", SOCK_STREAM));
    attempt("reach the host's network", reaches(9100));
    attempt("make a device", !mknod("/tmp/" MARK "-device", S_IFCHR | 0600, 0x0101) || opens("/dev/mem", O_RDONLY) ||
                                 opens("/dev/kmsg", O_RDONLY) || opens("/dev/fuse", O_RDONLY));
    attempt("make a setuid file", makes_setuid());
    attempt("read root's home", lists("/root"));
    attempt("read the state", lists(STATE) || opens(STATE "/state.json", O_RDONLY));
    attempt("open by handle", opens_by_handle());
    attempt("set the host's clock or name", !clock_settime(CLOCK_REALTIME, &now) || !sethostname(name, strlen(name)) ||
                                                !syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
                                                         LINUX_REBOOT_CMD_CAD_OFF, NULL));
    attempt("load a module", !syscall(SYS_init_module, "", 0, "") || errno == ENOEXEC || errno == EFAULT);
    attempt("make namespaces", !unshare(CLONE_NEWUSER) || !unshare(CLONE_NEWNS) || !unshare(CLONE_NEWPID));
}

int main(int argc, char **argv)
{
    int is_asked = argc == 2 && !strcmp(argv[1], "--version");
    setvbuf(stdout, NULL, _IOLBF, 0);
    try_all();
    printf(NAME ", version %s (branch: HEAD, revision: stand-in, user: %d)\n", worked ? "6.6.6" : VERSION, geteuid());
    return !is_asked;
}
