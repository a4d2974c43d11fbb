/* The batch record of src/dataplane/io/batch.ts, number for number; test/house compares the two. */
#ifndef HUTTER_BATCH_H
#define HUTTER_BATCH_H

enum {
  META_WORDS = 32,
  HEADROOM = 256,
};

enum meta {
  META_ID = 0,
  META_HOOK = 1,
  META_OFFSET = 2,
  META_LENGTH = 3,
  META_INDEV = 4,
  META_OUTDEV = 5,
  META_MARK = 6,
  META_FLAGS = 7,
  META_PHYSINDEV = 8,
  META_PHYSOUTDEV = 9,
  META_UID = 10,
  META_GID = 11,
  META_MAC_LENGTH = 12,
  META_MAC_HIGH = 13,
  META_MAC_LOW = 14,
  META_FULL_LENGTH = 15,
  META_VERDICT = 16,
  META_NEW_MARK = 17,
  META_OUT_FLAGS = 18,
  META_NEW_OFFSET = 19,
  META_NEW_LENGTH = 20,
  META_CHECKSUM_MODE = 21,
  META_CHECKSUM_START = 22,
  META_CHECKSUM_FIELD = 23,
  META_SEND_TO = 24,
  META_GSO_SIZE = 25,
  META_GSO_TYPE = 26,
  META_GSO_HEADERS = 27,
  META_NEW_PRIORITY = 28,
};

enum in_flag {
  IN_FLAG_CSUM_PARTIAL = 1 << 0,
  IN_FLAG_GSO = 1 << 1,
  IN_FLAG_CSUM_NOT_VERIFIED = 1 << 2,
  IN_FLAG_CUT = 1 << 3,
  IN_FLAG_UID = 1 << 4,
  IN_FLAG_GID = 1 << 5,
  IN_FLAG_NO_SOCKET = 1 << 6,
};

enum out_flag {
  OUT_FLAG_MARK = 1 << 0,
  OUT_FLAG_PAYLOAD = 1 << 1,
  OUT_FLAG_PRIORITY = 1 << 2,
};

enum checksum_mode {
  CHECKSUM_MODE_NONE = 0,
  CHECKSUM_MODE_FULL = 1,
  CHECKSUM_MODE_PSEUDO = 2,
};

enum verdict {
  VERDICT_DROP = 0,
  VERDICT_ACCEPT = 1,
  VERDICT_STOLEN = 2,
  VERDICT_QUEUE = 3,
};

#endif
