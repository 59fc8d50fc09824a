/** The rules of a simulation. simulation.test.ts plants at least one bug for each of them. */
export const RULES = [
  // No relay without a committed login or an allowance.
  'no relay without a login',
  'no grant for an address without a login',
  'a wrong password opens nothing',
  'no cdb entry without a login',
  'the cdb of a cluster needs answers',
  'a stopped cdb is empty',
  'a cdb starts empty',
  // +OK means an open relay, unless grant_wait is over.
  '+OK waits for its answer',
  '+OK waits at most grant_wait',
  'committed opens the relay',
  'queued needs a fault',
  'refused needs a block',
  // Never an ungrantable address.
  'no relay for an ungrantable address',
  'no cdb entry for an ungrantable address',
  // A block holds from the moment at which it is answered.
  'a block holds at its answer',
  'a block holds later',
  'a block reaches the cdb',
  // Behind a trusted proxy only the client that the header names counts.
  'no grant for a proxy',
  'popup serves no client without a name',
  'popup takes names from trusted proxies only',
  'a named client gets its grant',
  'no relay for a proxy',
  'no relay for a client without a name',
  'the gate takes names from trusted proxies only',
  'the gate decides about the named client',
  // An end never grows without a login.
  'no grant outlives its login',
  // A committed grant stays.
  'a committed grant stays',
  'a queued login is stored',
  'only a full queue drops logins',
  'only a full connection drops events',
  'a full queue empties',
  // Every service gives the same answer.
  'every service sees a grant',
  'the cdb has every grant',
  'the list has every open address',
  'the list has no other address',
] as const

export type Rule = (typeof RULES)[number]

/** A promise that the programs did not keep. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise'
  readonly rule: Rule

  constructor(rule: Rule, message: string) {
    super(message)
    this.rule = rule
  }
}
