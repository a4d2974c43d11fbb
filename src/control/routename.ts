/** Names of routing tables, as /etc/iproute2/rt_tables has them from the beginning. */
const TABLES: Readonly<Record<string, number>> = { default: 253, main: 254, local: 255 };

/** `main`, `100`, `0x64`: a table's number, or undefined. */
export function readTable(text: string): number | undefined {
  const number = TABLES[text] ?? (/^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : -1);
  return number >= 1 && number <= 0xffffffff ? number : undefined;
}

export const tableName = (number: number): string =>
  Object.keys(TABLES).find((name) => TABLES[name] === number) ?? String(number);
