import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compareMany, isFound, SERVICE_NEEDS, ServiceHost, SITES } from '../harness/hosts/service-host.ts'
import { describeWith } from '../harness/runner/describe-with.ts'
import { ORACLE_MUTANTS } from '../harness/smtp/relay-oracle.ts'
import { SOAK } from './settings.ts'

const { serviceHistories: CASES, seed: SEED } = SOAK

describeWith(SERVICE_NEEDS, 'every service and every table gives the same answer as the oracle', () => {
  describe.each(SITES)(`ipv6_prefix = $ipv6Prefix, deny_private = $denyPrivate, seed ${SEED}`, site => {
    let host: ServiceHost
    beforeAll(async () => {
      host = await ServiceHost.start(site)
    })
    afterAll(() => host.stop())

    test(`${CASES} random histories`, { timeout: 60_000 + CASES * 12_000 }, async () => {
      const open = await compareMany(host, site, CASES, SEED)
      console.log(`${CASES} histories, ${open} answers were yes`)
      expect(open).toBeGreaterThan(CASES)
    })

    test.runIf(site === SITES[0]).each(ORACLE_MUTANTS)('an oracle with a planted error is found: %s', async mutant => {
      expect(await isFound(mutant, host, site, SEED)).toBe(true)
    })
  })
})
