/** What together.ts uses of WebAssembly, which TypeScript knows as a part of browsers only. */
declare namespace WebAssembly {
  interface MemoryDescriptor {
    /** In pages of 64 KiB. */
    initial: number;
    maximum: number;
    shared: true;
  }
  class Memory {
    constructor(descriptor: MemoryDescriptor);
    readonly buffer: SharedArrayBuffer;
  }
  // eslint-disable-next-line @typescript-eslint/no-extraneous-class -- the platform's
  class Module {
    constructor(bytes: Uint8Array);
  }
  class Instance {
    constructor(module: Module, imports: Record<string, { memory: Memory }>);
    readonly exports: Record<string, unknown>;
  }
}
