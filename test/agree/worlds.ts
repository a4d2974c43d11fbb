/**
 * Two routers over one ruleset: one walks its rules in order, the other asks decision trees. `differ` runs packets through
 * both and says what differs: verdicts, what rules changed in the packet, and every rule's counters.
 */
import type { Chain, Ruleset } from '../../src/control/model.js';
import { Proto } from '../../src/dataplane/names.js';
import type { HookName } from '../../src/dataplane/names.js';
import { packet, ruleset, ruleOf, World, type Fields } from '../program/lab.js';

export interface Sent {
  readonly fields: Fields;
  readonly indev: number;
  readonly outdev: number;
  readonly state: number;
}

export class Pair {
  readonly walks = new World();
  readonly asks = new World();
  rules: Ruleset;

  constructor(text: string) {
    this.rules = ruleset(text);
    this.walks.load(this.rules);
    this.asks.load(this.rules);
    this.grow();
  }

  grow(): boolean {
    const grown = this.asks.compiler.growTrees();
    this.asks.load(this.rules);
    return grown;
  }

  /** How many chains have a tree in the program at hand. */
  get trees(): number {
    return [...this.rules.tables].reduce(
      (sum, table) =>
        sum + [...table.chains.keys()].filter((name) => this.asks.compiler.trees.shape(`${table.name} ${name}`)).length,
      0,
    );
  }

  /** Changes a chain of the first table; the trees stay as they are. */
  edit(name: string, change: (rules: Chain['rules'], make: (line: string) => Chain['rules']) => Chain['rules']): void {
    const table = this.rules.tables[0]!;
    const chain = table.chains.get(name)!;
    const rules = change(chain.rules, (line) => ruleOf(`-A ${name} ${line}`, table.name, table.chains));
    this.rules = { tables: [{ ...table, chains: new Map(table.chains).set(name, { ...chain, rules }) }] };
    this.walks.load(this.rules);
    this.asks.load(this.rules);
  }

  /** A sentence for the first packet that is treated otherwise, or for a counter that differs behind them all. */
  differ(packets: readonly Sent[], hook: HookName = 'INPUT'): string | undefined {
    const table = this.rules.tables[0]!;
    for (const sent of packets) {
      const results = [this.walks, this.asks].map((world) => {
        const p = packet(sent.fields);
        p.ctState = sent.state;
        const verdict = world.run(p, hook, table.name, sent.indev, sent.outdev);
        return `verdict ${verdict} mark ${p.mark} tos ${p.tos} ttl ${p.ttl} hotdrop ${p.hotdrop}`;
      });
      if (results[0] !== results[1]) return `${JSON.stringify(sent)}: ${results[1]}, walked ${results[0]}`;
    }
    for (const chain of table.chains.values())
      for (let rule = chain.policy ? 0 : 1; rule <= chain.rules.length; rule++) {
        const [walked, asked] = [this.walks, this.asks].map((world) => {
          world.rules = this.rules;
          return world.count(chain.name, rule, table.name).join();
        });
        if (walked !== asked) return `${chain.name} ${rule} counts ${asked}, walked ${walked}`;
      }
    return undefined;
  }
}

export const ADDRESSES = [
  '10.0.0.1',
  '10.0.0.2',
  '10.0.1.1',
  '10.1.0.1',
  '11.0.0.1',
  '192.168.0.1',
  '255.255.255.255',
  '0.0.0.0',
];
export const PORTS = [0, 1, 22, 53, 79, 80, 81, 1023, 1024, 8080, 65535];
export const PROTOCOLS = [Proto.TCP, Proto.UDP, Proto.ICMP, Proto.UDPLITE, Proto.SCTP, 47];
