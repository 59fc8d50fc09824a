declare module 'write-good' {
  /** A finding of a check that is switched on. */
  interface Finding {
    readonly index: number
    readonly offset: number
    readonly reason: string
  }
  export default function writeGood(text: string, checks: Readonly<Record<string, boolean>>): Finding[]
}
