/*
 * One's complement sums by 64-bit words (RFC 1071 §2: any word size will do, and the machine's own byte order), and what
 * a device does to a transport checksum before a packet goes back. See checksum.h.
 */
#include "checksum.h"
#include "batch.h"
#include "util.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

static uint64_t add_carry(uint64_t sum, uint64_t word) {
  sum += word;
  return sum + (sum < word);
}

static uint64_t load64(const uint8_t *p) {
  uint64_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

static uint16_t fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

uint16_t checksum_sum(const uint8_t *p, size_t length, uint64_t initial) {
  /* Four chains: one would wait for its own carry at every step. */
  uint64_t a = initial, b = 0, c = 0, d = 0;
  for (; length >= 32; p += 32, length -= 32) {
    a = add_carry(a, load64(p));
    b = add_carry(b, load64(p + 8));
    c = add_carry(c, load64(p + 16));
    d = add_carry(d, load64(p + 24));
  }
  a = add_carry(add_carry(a, b), add_carry(c, d));
  for (; length >= 8; p += 8, length -= 8) a = add_carry(a, load64(p));
  if (length > 0) {
    uint64_t rest = 0;
    memcpy(&rest, p, length);
    a = add_carry(a, rest);
  }
  return fold(a);
}

/* CRC32c, four bits at a time: SCTP is too rare here for more. */
static uint32_t crc32c(const uint8_t *p, size_t length) {
  static const uint32_t table[16] = {
      0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
      0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
  };
  uint32_t crc = 0xffffffff;
  while (length-- > 0) {
    crc ^= *p++;
    crc = (crc >> 4) ^ table[crc & 15];
    crc = (crc >> 4) ^ table[crc & 15];
  }
  return ~crc;
}

int checksum_finish(uint8_t *ip, size_t length, int mode, size_t start, size_t field) {
  const uint8_t protocol = length >= 20 ? ip[9] : 0;
  const size_t width = protocol == IPPROTO_SCTP ? 4 : 2;
  uint64_t pseudo;
  uint16_t sum;
  if (length < 20 || start < 20 || start > length || field < start || field + width > length) return -1;

  if (protocol == IPPROTO_SCTP) {
    uint32_t crc;
    memset(ip + field, 0, width);
    crc = crc32c(ip + start, length - start);
    for (size_t i = 0; i < 4; i++) ip[field + i] = (uint8_t)(crc >> (8 * i));
    return 0;
  }
  pseudo = protocol == IPPROTO_ICMP ? 0 : load64(ip + 12);
  if (protocol != IPPROTO_ICMP)
    pseudo = add_carry(pseudo, (uint64_t)htons(protocol) + htons((uint16_t)(length - start)));
  if (mode == CHECKSUM_MODE_PSEUDO) {
    sum = checksum_sum(NULL, 0, pseudo);
  } else {
    memset(ip + field, 0, width);
    sum = (uint16_t)~checksum_sum(ip + start, length - start, pseudo);
    if (sum == 0 && protocol == IPPROTO_UDP) sum = 0xffff;
  }
  memcpy(ip + field, &sum, width);
  return 0;
}

/* (bytes, ip, end, mode, start, field) → whether it could be done: for the test against the slow twin */
napi_value checksum_finish_bytes(napi_env env, napi_callback_info info) {
  napi_value args[6], result;
  uint8_t *bytes;
  size_t length, ip, end, start, field;
  bool done;
  if (!get_args(env, info, 6, args) || !(bytes = get_bytes(env, args[0], &length))) return NULL;
  ip = (uint32_t)get_int(env, args[1]);
  end = (uint32_t)get_int(env, args[2]);
  start = (uint32_t)get_int(env, args[4]);
  field = (uint32_t)get_int(env, args[5]);
  done = ip <= end && end <= length && start >= ip && field >= ip &&
         checksum_finish(bytes + ip, end - ip, get_int(env, args[3]), start - ip, field - ip) == 0;
  return napi_get_boolean(env, done, &result) == napi_ok ? result : NULL;
}
