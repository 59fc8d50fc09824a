import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { UsageFault } from '../../../src/base/errors.ts'
import { makeSocketDirectory } from '../../../src/process/unix-sockets.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

describe('the directory of a Unix socket', () => {
  const { path, remove } = temporaryDirectory()
  const runDir = `${path}/run`
  const make = (directory: string, owner?: { uid: number; gid: number }): void =>
    makeSocketDirectory(
      { kind: 'unix', path: `${directory}/policy.sock` },
      { runDir, setting: 'wrap.policy_listen', owner },
    )
  const modeOf = (directory: string): string => (statSync(directory).mode & 0o7777).toString(8)
  let umask: number
  beforeEach(() => {
    umask = process.umask(0o077)
  })
  afterEach(() => {
    process.umask(umask)
    remove()
  })

  test('is made below run_dir, with run_dir, and is open to every account under any umask', () => {
    make(`${runDir}/gate`)
    expect([modeOf(runDir), modeOf(`${runDir}/gate`)]).toEqual(['755', '755'])
    expect(process.umask()).toBe(0o077)
  })

  test('is run_dir itself', () => {
    make(runDir)
    expect(modeOf(runDir)).toBe('755')
  })

  test.runIf(process.geteuid?.() === 0)('belongs to the account that will listen; run_dir does not', () => {
    make(`${runDir}/gate`, { uid: 61234, gid: 61235 })
    expect(statSync(`${runDir}/gate`)).toMatchObject({ uid: 61234, gid: 61235 })
    expect(statSync(runDir).uid).toBe(0)
  })

  test('is unchanged if it exists', () => {
    make(`${runDir}/gate`)
    chmodSync(`${runDir}/gate`, 0o700)
    make(`${runDir}/gate`, { uid: 61234, gid: 61235 })
    expect(modeOf(`${runDir}/gate`)).toBe('700')
    expect(statSync(`${runDir}/gate`).uid).toBe(process.geteuid?.())
  })

  test.each(['runx', 'elsewhere/run', 'run/../other'])('is not made outside run_dir: %s', name => {
    make(`${path}/${name}`)
    expect(existsSync(`${path}/${name}`)).toBe(false)
  })

  test('cannot be made: the error has the setting, the fact and the remedy', () => {
    mkdirSync(path, { recursive: true })
    writeFileSync(`${path}/file`, '')
    const impossible = { runDir: `${path}/file`, setting: 'status-page.listen' }
    const make = (): void => makeSocketDirectory({ kind: 'unix', path: `${path}/file/status/page.sock` }, impossible)
    expect(make).toThrow(UsageFault)
    expect(make).toThrow(
      /^status-page\.listen: cannot make \/\S+\/file\/status: .*: create it \(install -d -m 755 \/\S+\/file\/status\) or change/,
    )
  })
})
