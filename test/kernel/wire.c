/*
 * The judge's hands: puts the same packet before two routers and takes up what comes out of each.
 *
 *     wire KERNEL-ROUTER KERNEL-FAR HUTTER-ROUTER HUTTER-FAR PORTS      (network namespaces by path; far ends e0, e1, …)
 *
 * stdin:  u8 port (255, 254 = from the router itself), u8 0, u16 length for the kernel, u16 length for hutter, both packets:
 *         Ethernet frames, or IP packets when from the router. Length 0: nothing is sent on that side.
 * stdout: u16 count, u16 1 if waiting was given up, then per frame u8 side, u8 port, u16 length, the frame.
 * Numbers are little endian. An answer is given when hutter's queues are empty and both sides gave the same number of
 * frames (or one side was asked alone), or when one side has kept the other waiting for PATIENCE.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#define MAX_PORTS 8
#define FROM_ROUTER 255 /* root's */
#define USER 254        /* uid and gid 1000 */
#define PATIENCE 25000000L /* ns without news */
#define LIMIT 1000000000L  /* ns in all */

static int far_end[2][MAX_PORTS], local[2][2], queues, ports, spread;
static uint8_t answer[1 << 22];
static size_t answer_length;
static unsigned counts[2];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void enter(const char *path) {
  int fd = open(path, O_RDONLY);
  if (fd < 0 || setns(fd, CLONE_NEWNET) < 0) die(path);
  close(fd);
}

static int open_port(int number) {
  char name[16];
  int one = 1, size = 1 << 22;
  struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) };
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
  if (fd < 0) die("packet socket");
  snprintf(name, sizeof name, "e%d", number);
  at.sll_ifindex = if_nametoindex(name);
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0) die("PACKET_IGNORE_OUTGOING");
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) die(name);
  return fd;
}

/* A raw socket of a user's; the owner match asks for what the file system sees as its maker. */
static int open_local(int id) {
  int one = 1, fd;
  setfsgid(id), setfsuid(id);
  fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0) die("raw socket");
  setfsuid(0), setfsgid(0);
  setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
  return fd;
}

static void read_all(void *to, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t n = read(0, (char *)to + done, length - done);
    if (n == 0) exit(0);
    if (n < 0 && errno != EINTR) die("stdin");
    if (n > 0) done += n;
  }
}

static long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* Frames that have come since; returns how many. */
static int take(void) {
  int got = 0;
  for (int side = 0; side < 2; side++)
    for (int port = 0; port < ports; port++)
      for (;;) {
        uint8_t *at = answer + answer_length;
        if (answer_length + 70000 > sizeof answer) return got;
        ssize_t n = recv(far_end[side][port], at + 4, 66000, 0);
        if (n < 0) break;
        at[0] = side, at[1] = port, at[2] = n, at[3] = n >> 8;
        answer_length += 4 + n;
        counts[side]++, got++;
      }
  return got;
}

/* Packets that wait for hutter's verdict. */
static int waiting(void) {
  char text[4096];
  ssize_t n = pread(queues, text, sizeof text - 1, 0);
  int sum = 0, queue, peer, total, used;
  if (n < 0) die("nfnetlink_queue");
  text[n] = 0;
  for (char *line = text; line && *line; line = strchr(line, '\n'), line += line != NULL)
    if (sscanf(line, "%d %d %d%n", &queue, &peer, &total, &used) == 3) sum += total;
  return sum;
}

static void inject(int side, int port, const uint8_t *packet, size_t length) {
  if (length == 0) return;
  if (port < USER) {
    /* EMSGSIZE: longer than the link; on both sides alike. */
    (void)!send(far_end[side][port], packet, length, 0);
    return;
  }
  struct sockaddr_in to = { .sin_family = AF_INET };
  memcpy(&to.sin_addr, packet + 16, 4);
  /* What the router's rules refuse, its programs hear of: EPERM and the like are outcomes. */
  (void)!sendto(local[side][FROM_ROUTER - port], packet, length, 0, (struct sockaddr *)&to, sizeof to);
}

/* Each packet goes in on another core than the one before it: so it comes to another worker (--fanout cpu). */
static void next_core(void) {
  static unsigned turn;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(turn++ % sysconf(_SC_NPROCESSORS_ONLN), &one);
  sched_setaffinity(0, sizeof one, &one);
}

int main(int argc, char **argv) {
  if (argc != 6 && argc != 7) return 2;
  ports = atoi(argv[5]), spread = argc == 7;
  for (int side = 0; side < 2; side++) {
    enter(argv[1 + side * 2]);
    for (int user = 0; user < 2; user++) local[side][user] = open_local(user ? 1000 : 0);
    if (side == 1 && (queues = open("/proc/self/net/netfilter/nfnetlink_queue", O_RDONLY)) < 0) die("nfnetlink_queue");
    enter(argv[2 + side * 2]);
    for (int port = 0; port < ports; port++) far_end[side][port] = open_port(port);
  }
  for (;;) {
    static uint8_t head[6], packets[2][65536 + 64];
    size_t length[2];
    read_all(head, sizeof head);
    length[0] = head[2] | head[3] << 8, length[1] = head[4] | head[5] << 8;
    for (int side = 0; side < 2; side++) read_all(packets[side], length[side]);
    answer_length = 4, counts[0] = counts[1] = 0;
    if (spread) next_core();
    for (int side = 0; side < 2; side++) inject(side, head[0], packets[side], length[side]);
    long start = now(), news = start;
    int late = 0;
    for (;;) {
      int pending = waiting();
      long t = now();
      if (take() > 0 || pending > 0) news = t;
      else if (counts[0] == counts[1] || length[0] == 0 || length[1] == 0) break;
      if (t - news > PATIENCE || t - start > LIMIT) {
        late = 1;
        break;
      }
      /* hutter's worker may want this very core. */
      usleep(20);
    }
    unsigned count = counts[0] + counts[1];
    answer[0] = count, answer[1] = count >> 8, answer[2] = late, answer[3] = 0;
    for (size_t done = 0; done < answer_length;) {
      ssize_t n = write(1, answer + done, answer_length - done);
      if (n < 0 && errno != EINTR) die("stdout");
      if (n > 0) done += n;
    }
  }
}
