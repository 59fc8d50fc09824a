import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { TemporaryFault } from '../../../src/base/errors.ts'
import { databaseConnection, databaseGroups } from '../../../src/settings/database-connection.ts'
import { parseSettings } from '../../../src/settings/settings.ts'

describe('the embedded database', () => {
  let directory: string
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'database-connection-'))
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  const settings = () =>
    parseSettings(`state_dir = "${directory}"\n[database]\nembedded = true\n`, '/etc/auth-relay.toml').settings

  test('that does not run is a temporary fault, which names the remedy', () => {
    const remedy = /does not run: start it with auth-relay up/
    expect(() => databaseConnection(settings(), 'reader')).toThrow(remedy)
    expect(() => databaseGroups(settings())).toThrow(remedy)
    expect(() => databaseGroups(settings())).toThrow(TemporaryFault)
  })

  test('that has lost its socket directory, as after a power failure, does not run', () => {
    writeFileSync(join(directory, 'database-socket'), `${join(directory, 'sockets')}\n`)
    expect(() => databaseGroups(settings())).toThrow(TemporaryFault)
    expect(() => databaseGroups(settings())).toThrow(/does not run: start it with auth-relay up/)
  })

  test('that runs is open to the group of its socket directory', () => {
    const sockets = join(directory, 'sockets')
    mkdirSync(sockets)
    writeFileSync(join(directory, 'database-socket'), `${sockets}\n`)
    expect(databaseGroups(settings())).toEqual([statSync(sockets).gid])
  })
})
