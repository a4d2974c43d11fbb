/*
 * udp-blast --to ADDRESS --port PORT [--hosts N] [--ports N] [--size BYTES] [--pps RATE] [--count N] [--from PORT]
 * Sends UDP datagrams with sendmmsg as fast as it can, or RATE a second, until SIGTERM or for N datagrams. They go in
 * turn to N hosts from ADDRESS on and, a round of hosts later, to the next of N ports from PORT on; every pair is a
 * flow, from a source port that the kernel chooses, or from PORT, so that another run goes on with the same flows. Up to
 * 256 flows have a connected socket each, which takes bursts of 16 (64 if it is the only one) and spares the sender a route
 * lookup a datagram; more flows share one socket. A datagram carries its number and bytes that follow from it, for udp-sink
 * to check. Prints what was sent, as JSON.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, BURST = 16, CONNECTED_FLOWS = 256, LONGEST = 65507 };

static int open_socket(uint16_t from) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  int buffer = 4 << 20;
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) < 0) fail("SO_SNDBUFFORCE");
  if (from) {
    const struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(from)};
    const int yes = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0) fail("SO_REUSEADDR");
    if (bind(fd, (const struct sockaddr *)&name, sizeof name) < 0) fail("bind");
  }
  return fd;
}

int main(int argc, char **argv) {
  struct in_addr to = {0};
  uint32_t from = 0, port = 0, hosts = 1, ports = 1, size = 18;
  uint64_t pps = 0, count = 0;
  static const struct option options[] = {
      {"to", required_argument, 0, 't'},    {"port", required_argument, 0, 'p'},  {"hosts", required_argument, 0, 'h'},
      {"ports", required_argument, 0, 'n'}, {"size", required_argument, 0, 's'},  {"pps", required_argument, 0, 'r'},
      {"count", required_argument, 0, 'c'}, {"from", required_argument, 0, 'f'},  {0, 0, 0, 0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 't': if (inet_pton(AF_INET, optarg, &to) != 1) to.s_addr = 0; break;
      case 'p': port = (uint32_t)atoi(optarg); break;
      case 'h': hosts = (uint32_t)atoi(optarg); break;
      case 'n': ports = (uint32_t)atoi(optarg); break;
      case 's': size = (uint32_t)atoi(optarg); break;
      case 'r': pps = strtoull(optarg, NULL, 10); break;
      case 'c': count = strtoull(optarg, NULL, 10); break;
      case 'f': from = (uint32_t)atoi(optarg); break;
      default: return 2;
    }
  }
  if (!to.s_addr || !port || !hosts || !ports || size < 8 || size > LONGEST) {
    fprintf(stderr, "usage: udp-blast --to ADDRESS --port PORT [--hosts N] [--ports N] [--size 8..65507] [--pps RATE]"
                    " [--count N] [--from PORT]\n");
    return 2;
  }
  stop_on_signals();

  uint64_t flows = (uint64_t)hosts * ports;
  int connected = flows <= CONNECTED_FLOWS;
  int sockets[CONNECTED_FLOWS];
  for (uint32_t i = 0; i < (connected ? flows : 1); i++) {
    sockets[i] = open_socket((uint16_t)from);
    struct sockaddr_in name = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(ntohl(to.s_addr) + i % hosts),
                               .sin_port = htons((uint16_t)(port + i / hosts))};
    if (connected && connect(sockets[i], (struct sockaddr *)&name, sizeof name) < 0) fail("connect");
  }

  uint8_t *payloads = malloc((size_t)BATCH * size);
  if (!payloads) fail("memory");
  struct mmsghdr messages[BATCH] = {0};
  struct iovec iov[BATCH];
  struct sockaddr_in names[BATCH];
  for (int i = 0; i < BATCH; i++) {
    iov[i] = (struct iovec){payloads + (size_t)i * size, size};
    names[i] = (struct sockaddr_in){.sin_family = AF_INET};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
    if (!connected) {
      messages[i].msg_hdr.msg_name = &names[i];
      messages[i].msg_hdr.msg_namelen = sizeof names[i];
    }
  }

  uint64_t sent = 0, errors = 0, start = now_ns();
  uint64_t turn = 0;
  uint32_t batch = pps && pps < 20000 ? 1 : connected && flows > 1 ? BURST : BATCH;
  while (!stopped && (count == 0 || sent < count)) {
    uint32_t n = count && count - sent < batch ? (uint32_t)(count - sent) : batch;
    for (uint32_t i = 0; i < n; i++) {
      uint64_t number = sent + i;
      uint8_t *bytes = iov[i].iov_base;
      memcpy(bytes, &number, sizeof number);
      for (uint32_t k = sizeof number; k < size; k++) bytes[k] = (uint8_t)(number + k);
      if (connected) continue;
      names[i].sin_addr.s_addr = htonl(ntohl(to.s_addr) + (uint32_t)(number % hosts));
      names[i].sin_port = htons((uint16_t)(port + number / hosts % ports));
    }
    int done = sendmmsg(sockets[connected ? turn++ % flows : 0], messages, n, 0);
    if (done < 0) {
      if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR && errno != ECONNREFUSED) fail("send");
      errors++;
      continue;
    }
    sent += (uint64_t)done;
    if (pps) {
      uint64_t due = start + sent * 1000000000u / pps;
      sleep_until(due);
    }
  }
  double seconds = (double)(now_ns() - start) / 1e9;
  printf("{\"sent\":%llu,\"errors\":%llu,\"seconds\":%.6f}\n", (unsigned long long)sent, (unsigned long long)errors,
         seconds);
  return 0;
}
