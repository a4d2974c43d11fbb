/* Building and reading netlink attributes, as netlink(7) and rtnetlink(3) lay them out. Bounds are the caller's. */
#ifndef HUTTER_NETLINK_H
#define HUTTER_NETLINK_H

#include <linux/netlink.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Appends an attribute; the message must have room. */
static inline void nl_put(struct nlmsghdr *message, uint16_t type, const void *data, uint16_t length) {
  uint8_t *at = (uint8_t *)message + NLMSG_ALIGN(message->nlmsg_len);
  const struct nlattr attribute = {(uint16_t)(NLA_HDRLEN + length), type};
  memcpy(at, &attribute, sizeof attribute);
  memcpy(at + NLA_HDRLEN, data, length);
  memset(at + NLA_HDRLEN + length, 0, NLA_ALIGN(length) - length);
  message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + NLA_HDRLEN + NLA_ALIGN(length);
}

static inline void nl_put_u32(struct nlmsghdr *message, uint16_t type, uint32_t value) {
  nl_put(message, type, &value, sizeof value);
}

/* Walks attributes: `*at` moves to the next one; false at the end or at a malformed one. Lengths include the header. */
static inline bool nl_next(const uint8_t **at, const uint8_t *end, uint16_t *type, const uint8_t **data,
                           uint32_t *length) {
  struct nlattr attribute;
  if (end - *at < NLA_HDRLEN) return false;
  memcpy(&attribute, *at, sizeof attribute);
  if (attribute.nla_len < NLA_HDRLEN) return false;
  *type = attribute.nla_type & NLA_TYPE_MASK;
  *data = *at + NLA_HDRLEN;
  *length = attribute.nla_len - NLA_HDRLEN;
  *at = end - *at < NLA_ALIGN(attribute.nla_len) ? end : *at + NLA_ALIGN(attribute.nla_len);
  return true;
}

static inline uint32_t load32(const uint8_t *p) {
  uint32_t word;
  memcpy(&word, p, sizeof word);
  return word;
}

#endif
