/** What a command of the control socket says. */
import type { CommandOutput } from '../../src/control/conntrack.js';

export class Said implements CommandOutput {
  readonly all = { stdout: '', stderr: '' };
  readonly stdout = (text: string): void => void (this.all.stdout += text);
  readonly stderr = (text: string): void => void (this.all.stderr += text);
}
