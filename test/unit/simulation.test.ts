import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { RULES, type Rule } from '../simulation/rules.ts'
import { prepareStage, runPlans } from '../simulation/run.ts'
import type { Stage } from '../simulation/stage.ts'
import type { WorldMutant } from '../simulation/world.ts'

const stage = vi.hoisted((): Stage => ({ sockets: undefined, handle: undefined, directory: '' }))

vi.mock('node:net', async importOriginal => {
  const { simulatedNet } = await import('../simulation/stage.ts')
  return simulatedNet(await importOriginal<typeof import('node:net')>(), stage)
})

let removeStage: () => void
beforeAll(async () => {
  removeStage = await prepareStage(stage)
})
afterAll(() => removeStage())

/** Fixed plans; `npm run test:soak -- simulation` uses new ones. */
const SEED = 5

/** For each rule, the bugs that it finds while every other rule is off. */
const BUGS: Readonly<Record<Rule, readonly WorldMutant[]>> = {
  'no relay without a login': ['lookup ignores the end', 'a service caches its answers'],
  'no grant for an address without a login': ['a wrong password counts'],
  'a wrong password opens nothing': ['a wrong password counts'],
  'no cdb entry without a login': ['the cdb has no ends'],
  'the cdb of a cluster needs answers': ['the cdb of a cluster needs no answer'],
  'a stopped cdb is empty': ['a stopped cdb keeps its grants'],
  'a cdb starts empty': ['a started cdb keeps its grants'],
  '+OK waits for its answer': ['+OK does not wait'],
  '+OK waits at most grant_wait': ['+OK waits without end'],
  'committed opens the relay': ['commits get lost', 'queued is called committed'],
  'queued needs a fault': ['every login is queued'],
  'refused needs a block': ['ended blocks refuse logins'],
  'no relay for an ungrantable address': ['no address is ungrantable'],
  'no cdb entry for an ungrantable address': ['no address is ungrantable'],
  'a block holds at its answer': ['lookup ignores blocks'],
  'a block holds later': ['lookup forgets blocks'],
  'a block reaches the cdb': ['the list ignores blocks'],
  'no grant for a proxy': ['a proxy is grantable'],
  'popup serves no client without a name': ['popup takes UNKNOWN for the proxy'],
  'popup takes names from trusted proxies only': ['popup trusts every peer'],
  'a named client gets its grant': ['popup swaps the ends of a header'],
  'no relay for a proxy': ['the gate relays for its proxies'],
  'no relay for a client without a name': ['the gate repeats the last name'],
  'the gate takes names from trusted proxies only': ['the gate trusts every peer'],
  'the gate decides about the named client': ['the gate swaps the ends of a header'],
  'no grant outlives its login': ['a repeat counts from now'],
  'a committed grant stays': ['the sweep deletes current grants'],
  'a queued login is stored': ['queued logins are dropped'],
  'only a full queue drops logins': ['a queue is smaller than its limit'],
  'only a full connection drops events': ['a queue is smaller than its limit'],
  'a full queue empties': ['a full queue stays full'],
  'every service sees a grant': ['a service finds no grant'],
  'the cdb has every grant': ['the list leaves an address out'],
  'the list has every open address': ['the list leaves allowances out'],
  'the list has no other address': ['the list ignores blocks'],
}

describe('popup, authd and the gate in virtual time', () => {
  // docs/PROMISES.md names the number of device-days.
  test('keep every promise in 20,000 device-days', async () => {
    const { deviceDays, failure, replay } = await runPlans(stage, 20_000, SEED)
    expect(failure, replay).toBeUndefined()
    expect(deviceDays).toBeGreaterThanOrEqual(20_000)
  }, 300_000)

  test.each(RULES.flatMap(rule => BUGS[rule].map(mutant => ({ rule, mutant }))))(
    'the rule "$rule" finds the bug "$mutant"',
    async bug => {
      const { failure } = await runPlans(stage, 60_000, SEED, bug)
      expect(failure).toMatchObject({ name: 'BrokenPromise', rule: bug.rule })
    },
    120_000,
  )
})
