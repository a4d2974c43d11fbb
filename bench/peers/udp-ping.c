/*
 * udp-ping --to ADDRESS --port PORT [--pps RATE]: sends datagrams to an echo, RATE a second (default 1,000), each once the
 * one before is back or a second is over, until SIGTERM. Prints the round trips as JSON: how many, lost ones, and
 * microseconds at half, at 99 of 100, and the longest.
 * udp-ping --listen PORT --at ADDRESS: the echo. Prints "ready".
 */
#include "peer.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1 << 20, SIZE = 64, PATIENCE_MS = 1000 };

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static int echo(int fd, struct in_addr at, uint16_t port) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = at, .sin_port = htons(port)};
  if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) fail("bind");
  printf("ready\n");
  fflush(stdout);
  while (!stopped) {
    uint8_t bytes[2048];
    socklen_t length = sizeof name;
    ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&name, &length);
    if (n >= 0) sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)&name, length);
  }
  return 0;
}

int main(int argc, char **argv) {
  struct in_addr to = {0};
  uint32_t port = 0, listens = 0, pps = 1000;
  static const struct option options[] = {{"to", required_argument, 0, 't'},
                                          {"port", required_argument, 0, 'p'},
                                          {"listen", required_argument, 0, 'l'},
                                          {"at", required_argument, 0, 't'},
                                          {"pps", required_argument, 0, 'r'},
                                          {0, 0, 0, 0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 't': if (inet_pton(AF_INET, optarg, &to) != 1) to.s_addr = 0; break;
      case 'p': port = (uint32_t)atoi(optarg); break;
      case 'l': listens = (uint32_t)atoi(optarg); break;
      case 'r': pps = (uint32_t)atoi(optarg); break;
      default: return 2;
    }
  }
  if (!to.s_addr || (!listens && (!port || !pps))) {
    fprintf(stderr, "usage: udp-ping --to ADDRESS --port PORT [--pps RATE] | --listen PORT --at ADDRESS\n");
    return 2;
  }
  stop_on_signals();
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  if (listens) return echo(fd, to, (uint16_t)listens);

  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = to, .sin_port = htons((uint16_t)port)};
  if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0) fail("connect");
  uint32_t *trips = malloc(MOST * sizeof *trips);
  if (!trips) fail("memory");
  uint64_t count = 0, lost = 0, start = now_ns();
  for (uint64_t number = 0; !stopped && count < MOST; number++) {
    uint8_t bytes[SIZE] = {0};
    memcpy(bytes, &number, sizeof number);
    uint64_t sent = now_ns();
    if (send(fd, bytes, sizeof bytes, 0) < 0 && errno != ECONNREFUSED) fail("send");
    for (;;) {
      struct pollfd polled = {.fd = fd, .events = POLLIN};
      uint64_t waited = (now_ns() - sent) / 1000000u;
      if (stopped) break;
      if (waited >= PATIENCE_MS || poll(&polled, 1, (int)(PATIENCE_MS - waited)) == 0) {
        lost++;
        break;
      }
      uint64_t answer = UINT64_MAX;
      if (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) != SIZE) continue;
      memcpy(&answer, bytes, sizeof answer);
      if (answer != number) continue; /* one that was given up */
      trips[count++] = (uint32_t)((now_ns() - sent) / 100u);
      break;
    }
    uint64_t due = start + (number + 1) * 1000000000u / pps;
    if (due < now_ns()) start = now_ns() - (number + 1) * 1000000000u / pps; /* late ones are not made up for in a burst */
    else sleep_until(due);
  }
  qsort(trips, count, sizeof *trips, ascending);
  printf("{\"count\":%llu,\"lost\":%llu,\"p50\":%.1f,\"p99\":%.1f,\"longest\":%.1f}\n", (unsigned long long)count,
         (unsigned long long)lost, count ? trips[count / 2] / 10.0 : 0, count ? trips[count * 99 / 100] / 10.0 : 0,
         count ? trips[count - 1] / 10.0 : 0);
  return 0;
}
