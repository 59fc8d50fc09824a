import { expect, test } from 'vitest'
import { run } from '../../harness/processes/program.ts'
import { command, describeWith } from '../../harness/runner/describe-with.ts'

const units = new URL('../../../deploy/systemd/', import.meta.url).pathname

/**
 * Highest exposure level of systemd-analyze, by unit. popup's monitor starts checkers and maildrops
 * of any account, so it stays root; it reads nothing from the network.
 */
const EXPOSURE = { authd: 2.0, sslwrap: 2.0, wrap: 2.0, 'status-page': 2.0, popup: 4.0 } as const

describeWith([command('systemd-analyze', 'systemd')], 'systemd units', () => {
  test.each(Object.entries(EXPOSURE))('auth-relay-%s.service: exposure at most %d', async (name, most) => {
    const words = ['security', '--offline=yes', '--no-pager', `${units}auth-relay-${name}.service`]
    const { lines } = await run(['systemd-analyze', ...words])
    const exposure = /Overall exposure level for \S+: ([\d.]+) /.exec(lines.join('\n'))?.[1]
    expect(Number(exposure), lines.join('\n')).toBeLessThanOrEqual(most)
  })
})
