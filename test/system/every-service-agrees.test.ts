import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compareMany, isFound, SERVICE_NEEDS, ServiceHost, SITES } from '../harness/hosts/service-host.ts'
import { describeWith } from '../harness/runner/describe-with.ts'

/** `npm run test:soak -- services` uses more histories and more planted errors. */
const CASES = 4
const SEED = 25

describeWith(SERVICE_NEEDS, 'every service and every table gives the same answer as the oracle', () => {
  describe.each(SITES)('ipv6_prefix = $ipv6Prefix, deny_private = $denyPrivate', site => {
    let host: ServiceHost
    beforeAll(async () => {
      host = await ServiceHost.start(site)
    })
    afterAll(() => host.stop())

    test(`${CASES} random histories`, { timeout: 120_000 }, async () => {
      // The relay must be open in enough cases for a meaningful comparison.
      expect(await compareMany(host, site, CASES, SEED)).toBeGreaterThan(CASES)
    })

    test('an oracle without the end of a grant is found', async () => {
      expect(await isFound('a grant has no end', host, site, SEED)).toBe(true)
    })
  })
})
