/** Messages of SIP as text (RFC 3261, RFC 4566). */

/** A message, its Content-Length that of the body. */
export const message = (lines: string[], body = ''): string =>
  [...lines, `Content-Length: ${body.length}`, '', body].join('\r\n');
/** A session description of the owner with media such as `audio 4000`, which may have `c=` lines behind a comma. */
export const session = (owner: string, ...media: string[]): string =>
  ['v=0', `o=me 1 1 IN IP4 ${owner}`, 's=-', `c=IN IP4 ${owner}`, 't=0 0']
    .concat(
      media.flatMap((medium) => {
        const [line, address] = medium.split(',');
        return [`m=${line} RTP/AVP 0`, ...(address === undefined ? [] : [`c=IN IP4 ${address}`])];
      }),
      '',
    )
    .join('\r\n');

export interface Call {
  /** The one that says this, and the one it is said to, as they know each other. */
  from: string;
  to: string;
  cseq: number;
  via?: string;
  transport?: 'UDP' | 'TCP';
  more?: string[];
}
export const end = (address: string): string => (address.includes(':') ? address : `${address}:5060`);
function headers({ from, to, cseq, via = from, transport = 'UDP', more = [] }: Call, method: string): string[] {
  return [
    `Via: SIP/2.0/${transport} ${end(via)};branch=z9hG4bK${cseq}`,
    `From: <sip:me@${end(from)}>;tag=1`,
    `To: <sip:you@${end(to)}>`,
    `Call-ID: 1@${from}`,
    `CSeq: ${cseq} ${method}`,
    ...more,
  ];
}
export const request = (method: string, call: Call, body?: string): string =>
  message([`${method} sip:you@${end(call.to)} SIP/2.0`, ...headers(call, method)], body);
/** What `to` answers: the headers are those of the request as it came there. */
export const response = (status: string, method: string, call: Call, body?: string): string =>
  message([`SIP/2.0 ${status}`, ...headers(call, method)], body);
