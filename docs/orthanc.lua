-- Sends each new film of an Orthanc to `cxw-monai serve`, which sends its DICOM SEG and SR back.
--
-- In orthanc.json, with the DICOMweb plugin (Debian: orthanc, orthanc-dicomweb):
--   "LuaScripts": ["/etc/orthanc/orthanc.lua"],
--   "DicomWeb": {"Enable": true, "Servers": {"cxw": {"Url": "http://127.0.0.1:8043/"}}}
-- With a token, beside "Url": "HttpHeaders": {"Authorization": "Bearer TOKEN"}
-- Beside it: cxw-monai serve queue/ --send-to http://127.0.0.1:8042/dicom-web
--
-- The job is Orthanc's: it is kept on the disk, and can be tried again there (/jobs) when the service wasn't running.

local FILMS = { CR = true, DX = true, RG = true }

function OnStoredInstance(instance, tags, metadata, origin)
  if FILMS[tags['Modality']] then
    local job = { Resources = { instance }, Synchronous = false }
    RestApiPost('/dicom-web/servers/cxw/stow', DumpJson(job), false)
  end
end
