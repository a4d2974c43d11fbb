/*
 * udp-sink --port PORT [--ports N] [--source ADDRESS]: receives what udp-blast sends, until SIGTERM, and checks it: each
 * datagram's bytes must follow from its number, and its source must be ADDRESS if one is given (what SNAT promised).
 * The kernel has verified the checksums of what arrives here; those it refused are counted too (UDP's InCsumErrors of this network namespace).
 * Prints "ready", and at the end the counts as JSON.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { BATCH = 64, LONGEST = 65536, MOST_PORTS = 64 };

/* UDP datagrams that this namespace's kernel threw away for a wrong checksum (InCsumErrors of /proc/net/snmp). */
static unsigned long long checksum_errors(void) {
  unsigned long long values[8] = {0};
  char line[512];
  FILE *file = fopen("/proc/net/snmp", "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, "Udp: ", 5) == 0 && line[5] >= '0' && line[5] <= '9') {
      sscanf(line + 5, "%llu %llu %llu %llu %llu %llu %llu", &values[0], &values[1], &values[2], &values[3], &values[4],
             &values[5], &values[6]);
    }
  }
  fclose(file);
  return values[6];
}

int main(int argc, char **argv) {
  uint32_t port = 0, ports = 1;
  struct in_addr source = {0};
  static const struct option options[] = {{"port", required_argument, 0, 'p'},
                                          {"ports", required_argument, 0, 'n'},
                                          {"source", required_argument, 0, 's'},
                                          {0, 0, 0, 0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 'p': port = (uint32_t)atoi(optarg); break;
      case 'n': ports = (uint32_t)atoi(optarg); break;
      case 's': if (inet_pton(AF_INET, optarg, &source) != 1) source.s_addr = 0; break;
      default: return 2;
    }
  }
  if (!port || !ports || ports > MOST_PORTS) {
    fprintf(stderr, "usage: udp-sink --port PORT [--ports 1..64] [--source ADDRESS]\n");
    return 2;
  }
  stop_on_signals();

  struct pollfd polled[MOST_PORTS];
  for (uint32_t i = 0; i < ports; i++) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) fail("socket");
    int buffer = 16 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(port + i))};
    if (bind(fd, (struct sockaddr *)&local, sizeof local) < 0) fail("bind");
    polled[i] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
  uint8_t *bytes = malloc((size_t)BATCH * LONGEST);
  if (!bytes) fail("memory");
  static struct mmsghdr messages[BATCH];
  static struct iovec iov[BATCH];
  static struct sockaddr_in names[BATCH];
  for (int i = 0; i < BATCH; i++) {
    iov[i] = (struct iovec){bytes + (size_t)i * LONGEST, LONGEST};
    messages[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_iov = &iov[i], .msg_iovlen = 1};
  }
  printf("ready\n");
  fflush(stdout);

  uint64_t received = 0, damaged = 0, foreign = 0;
  while (!stopped) {
    if (poll(polled, ports, 200) <= 0) continue;
    for (uint32_t s = 0; s < ports; s++) {
      if (!(polled[s].revents & POLLIN)) continue;
      for (int i = 0; i < BATCH; i++) messages[i].msg_hdr.msg_namelen = sizeof names[i];
      int n = recvmmsg(polled[s].fd, messages, BATCH, 0, NULL);
      for (int i = 0; i < n; i++) {
        const uint8_t *at = iov[i].iov_base;
        uint32_t length = messages[i].msg_len;
        uint64_t number = 0;
        int good = length >= sizeof number;
        if (good) memcpy(&number, at, sizeof number);
        for (uint32_t k = sizeof number; good && k < length; k++) good = at[k] == (uint8_t)(number + k);
        received++;
        if (!good) damaged++;
        if (source.s_addr && names[i].sin_addr.s_addr != source.s_addr) foreign++;
      }
    }
  }
  printf("{\"received\":%llu,\"damaged\":%llu,\"foreign\":%llu,\"badChecksums\":%llu}\n", (unsigned long long)received,
         (unsigned long long)damaged, (unsigned long long)foreign, checksum_errors());
  return 0;
}
