/*
 * nfq-rewrite QUEUE SOURCE [LENGTH [INSIDE]]: the least a userspace SNAT can do. Every packet gets the source address SOURCE
 * (one that is for SOURCE gets the destination INSIDE instead: the way back for one host) and goes back with its payload, in place. Checksums as a translator must leave them: the IP header's and a finished transport checksum by
 * increment (RFC 1624); one that the sender left to its device (CHECKSUM_PARTIAL) in full, or, for a packet that
 * will still be segmented, the pseudo-header's sum alone. A packet that the queue cut is dropped, as sending it back
 * would truncate it. Prints "ready" when bound and its counts, as JSON, at SIGTERM.
 */
#include "nfq.h"

enum { PROTO_TCP = 6, PROTO_UDP = 17 };

static uint16_t load16(const uint8_t *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static void store16(uint8_t *at, uint16_t value) { memcpy(at, &value, sizeof value); }

static uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

/* Sum of `length` bytes in memory order (RFC 1071 §2B: the order of bytes does not matter to it). */
static uint64_t sum_bytes(const uint8_t *at, uint32_t length, uint64_t sum) {
  for (; length >= 4; at += 4, length -= 4) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    sum += word;
  }
  if (length >= 2) {
    sum += load16(at);
    at += 2;
    length -= 2;
  }
  if (length) {
    uint8_t last[2] = {*at, 0};
    sum += load16(last);
  }
  return sum;
}

/* The checksum after the 32 bits it covers changed (RFC 1624, equation 3), all in memory order. */
static uint16_t update(uint16_t checksum, uint32_t from, uint32_t to) {
  return (uint16_t)~fold((uint64_t)(uint16_t)~checksum + (uint32_t)~from + to);
}

/* Gives the packet its new source, or destination; 0 if it is not one that can be rewritten. */
static int rewrite(struct packet *p, uint32_t source, uint32_t inside) {
  uint8_t *ip = p->payload;
  if (p->cut || p->length < 20 || ip[0] >> 4 != 4) return 0;
  uint32_t header = (ip[0] & 15u) << 2;
  if (header < 20 || p->length < header) return 0;
  uint32_t old, now = source;
  uint8_t *address = ip + 12;
  memcpy(&old, ip + 16, sizeof old);
  if (inside && old == source) {
    address = ip + 16;
    now = inside;
  }
  memcpy(&old, address, sizeof old);
  memcpy(address, &now, sizeof now);
  store16(ip + 10, update(load16(ip + 10), old, now));

  uint8_t *l4 = ip + header;
  uint32_t length = p->length - header;
  int first = (load16(ip + 6) & htons(0x1fff)) == 0;
  uint32_t field = ip[9] == PROTO_UDP ? 6 : ip[9] == PROTO_TCP ? 16 : 0;
  if (!first || field == 0 || length < field + 2) return 1;

  if (!(p->flags & NFQA_SKB_CSUMNOTREADY)) {
    uint16_t checksum = load16(l4 + field);
    if (ip[9] == PROTO_UDP && checksum == 0) return 1; /* none was made */
    checksum = update(checksum, old, now);
    store16(l4 + field, ip[9] == PROTO_UDP && checksum == 0 ? 0xffff : checksum);
    return 1;
  }
  uint64_t pseudo = sum_bytes(ip + 12, 8, (uint64_t)htons(ip[9]) + htons((uint16_t)length));
  if (p->flags & NFQA_SKB_GSO) {
    store16(l4 + field, fold(pseudo));
    return 1;
  }
  store16(l4 + field, 0);
  uint16_t checksum = (uint16_t)~fold(sum_bytes(l4, length, pseudo));
  store16(l4 + field, ip[9] == PROTO_UDP && checksum == 0 ? 0xffff : checksum);
  return 1;
}

int main(int argc, char **argv) {
  uint32_t source, inside = 0;
  if (argc < 3 || inet_pton(AF_INET, argv[2], &source) != 1 ||
      (argc > 4 && inet_pton(AF_INET, argv[4], &inside) != 1)) {
    fprintf(stderr, "usage: nfq-rewrite QUEUE SOURCE [LENGTH [INSIDE]]\n");
    return 2;
  }
  static struct queue q;
  open_queue(&q, (uint16_t)atoi(argv[1]), argc > 3 ? (uint32_t)atoi(argv[3]) : 4096);
  printf("ready\n");
  fflush(stdout);

  struct iovec iov[BATCH];
  while (!stopped) {
    int n = receive(&q);
    if (n == 0) continue;
    for (int i = 0; i < n; i++) {
      struct packet *p = &q.packets[i];
      int good = rewrite(p, source, inside);
      /* The netlink headers before the payload are done with: the verdict's take their place. */
      struct verdict *v = (struct verdict *)(p->payload - sizeof *v);
      write_verdict(&q, v, p->id, good ? NF_ACCEPT : NF_DROP, good ? p->length : 0);
      if (!good) {
        iov[i] = (struct iovec){v, v->nlh.nlmsg_len};
        continue;
      }
      uint32_t padding = NLMSG_ALIGN(p->length) - p->length;
      memset(p->payload + p->length, 0, padding);
      iov[i] = (struct iovec){v, v->nlh.nlmsg_len + padding};
    }
    send_verdicts(&q, iov, (size_t)n);
  }
  report(&q);
  return 0;
}
