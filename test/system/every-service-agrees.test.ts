import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { describeWith } from '../harness/describe-with.ts'
import { compareMany, isFound, SERVICE_NEEDS, ServiceHost, SITES } from '../harness/service-host.ts'

/** `npm run test:soak -- services` asks about more histories, and with more errors planted. */
const CASES = 4
const SEED = 25

describeWith(SERVICE_NEEDS, 'every service and every table gives the answer of one oracle', () => {
  describe.each(SITES)('ipv6_prefix = $ipv6Prefix, deny_private = $denyPrivate', site => {
    let host: ServiceHost
    beforeAll(async () => {
      host = await ServiceHost.start(site)
    })
    afterAll(() => host.stop())

    test(`${CASES} random histories`, { timeout: 120_000 }, async () => {
      // The relay is open often enough for the comparison to mean something.
      expect(await compareMany(host, site, CASES, SEED)).toBeGreaterThan(CASES)
    })

    test('an oracle to which a grant has no end is found to err', async () => {
      expect(await isFound('a grant has no end', host, site, SEED)).toBe(true)
    })
  })
})
