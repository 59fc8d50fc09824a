import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { copyCheckout, copyNodeModules } from '../harness/checkout.ts'
import { run } from '../harness/processes/program.ts'
import { command, describeWith } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

/** A version that is never released. */
const VERSION = '999.0.0'

const Bill = v.object({ metadata: v.object({ component: v.object({ name: v.string(), version: v.string() }) }) })

describeWith(
  [command('npm', 'nodejs'), command('git'), command('dpkg-deb', 'dpkg'), command('strip', 'binutils')],
  'a release by the commands of CONTRIBUTING',
  () => {
    const { path, remove } = temporaryDirectory()
    const checkout = `${path}/checkout`
    const packages = `${checkout}/packages`
    afterAll(remove)

    const outputOf = async (directory: string, ...words: readonly string[]): Promise<string> => {
      const env = { PATH: process.env['PATH'], HOME: process.env['HOME'] }
      const program = await run(words, { cwd: directory, env })
      expect(program.ending, program.transcript()).toEqual({ code: 0, signal: null })
      return program.lines.join('\n')
    }
    const git = (...words: readonly string[]) =>
      outputOf(checkout, 'git', '-c', 'user.name=Test', '-c', 'user.email=test@example.org', ...words)
    const release = (...words: readonly string[]) =>
      outputOf(checkout, process.execPath, 'scripts/release.ts', ...words)

    beforeAll(async () => {
      copyCheckout(checkout)
      copyNodeModules(checkout)
      const changes = `${checkout}/CHANGELOG.md`
      writeFileSync(changes, readFileSync(changes, 'utf8').replace(/^## Pending$/m, '## Pending\n\n- A change.'))
      await git('init', '-q')
      await git('config', 'user.name', 'Test')
      await git('config', 'user.email', 'test@example.org')
      await git('add', '-A')
      await git('commit', '-qm', 'A checkout')
      expect(await release('prepare', VERSION)).toContain(`git commit -am 'release: prepare version ${VERSION}'`)
      await git('commit', '-qam', `release: prepare version ${VERSION}`)
      await release()
    }, 900_000)

    test('makes the Debian package, the npm package, their bill of materials, and a tag', async () => {
      const debian = `auth-relay_${VERSION}-1_${await outputOf('/', 'dpkg', '--print-architecture')}.deb`
      expect(readdirSync(packages).sort()).toEqual(
        ['SHA256SUMS', `auth-relay-${VERSION}.cdx.json`, `auth-relay-${VERSION}.tgz`, debian].sort(),
      )
      expect(await outputOf(packages, 'dpkg-deb', '-f', debian, 'Version')).toBe(`${VERSION}-1`)
      expect(await outputOf(packages, 'tar', '-xOzf', `auth-relay-${VERSION}.tgz`, 'package/package.json')).toContain(
        `"version": "${VERSION}"`,
      )
      const bill = v.parse(Bill, JSON.parse(readFileSync(`${packages}/auth-relay-${VERSION}.cdx.json`, 'utf8')))
      expect(bill.metadata.component).toEqual({ name: 'auth-relay', version: VERSION })
      expect(await git('tag', '--list')).toBe(`v${VERSION}`)
    })

    test('has a checksum of each file', async () => {
      const checked = await outputOf(packages, 'sha256sum', '--check', '--strict', 'SHA256SUMS')
      const files = readdirSync(packages).filter(name => name !== 'SHA256SUMS')
      expect(checked.split('\n').sort()).toEqual(files.map(name => `${name}: OK`).sort())
    })
  },
)
